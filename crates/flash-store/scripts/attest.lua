#!lua
-- Asked by a node whose home changed, or that misses events: is everything that it knows as acknowledged here?
-- If so this Redis is the sale's home from now on; if not, the sale is frozen.
-- (With several nodes each that was seen in the last 15 s has to pass before home moves; one node is all of them.)
--
-- KEYS 1 meta  2 w  3 ev
-- ARGV 1 run id of this Redis  2 node  3 epoch  4 last acknowledged seq under it  5 last acknowledged ev  6 serial for the event
--      7 grace_ms_max: how long open reservations are kept after Redis was away, if their window is not shorter
-- Returns {'PASSED', gen} | {'BEHIND', seq, ev, gen} | {'FENCED'} | {'GONE'}
local meta = redis.call('HMGET', KEYS[1], 'gen', 'state', 'ev', 'clock_ms', 'window_ms')
if not meta[1] then return {'GONE'} end
redis.call('XLEN', KEYS[3])
local mine = redis.call('HGET', KEYS[2], ARGV[2])
-- Another node took over: it is not for this one to judge.
if not mine and redis.call('HLEN', KEYS[2]) > 0 then return {'FENCED'} end
local epoch, seq = 0, 0
if mine then
    local e, s = string.match(mine, '^(%d+)|(%d+)|')
    epoch, seq = tonumber(e), tonumber(s)
end
if epoch > tonumber(ARGV[3]) then return {'FENCED'} end
local ev = tonumber(meta[3])
local gen = string.format('%.0f', tonumber(meta[1]) + 1)
local is_here = epoch == tonumber(ARGV[3]) and seq >= tonumber(ARGV[4]) and ev >= tonumber(ARGV[5])
if is_here then
    -- Nobody could pay while Redis was away: nothing expires before this is over.
    local time = redis.call('TIME')
    local now = math.max(tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), tonumber(meta[4]))
    local grace = now + math.min(tonumber(ARGV[7]), tonumber(meta[5]))
    redis.call('HSET', KEYS[1], 'home', ARGV[1], 'gen', gen, 'grace_ms', string.format('%.0f', grace))
    return {'PASSED', gen}
end
local detail = 'events up to ' .. ARGV[5] .. ' were acknowledged, the store ends with ' .. meta[3]
if meta[2] ~= 'frozen' then
    redis.call('XADD', KEYS[3], gen .. '-' .. (ev + 1), 'at', meta[4],
        'c', 'E|' .. ARGV[6] .. '|sale.frozen|||{"reason":"' .. detail .. '"}')
    redis.call('HSET', KEYS[1], 'state', 'frozen', 'thaw', meta[2], 'gen', gen, 'ev', ev + 1)
end
return {'BEHIND', string.format('%.0f', seq), meta[3], gen}
