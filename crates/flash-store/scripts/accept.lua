#!lua
-- An operator takes a frozen sale as the store has it: it leaves the freeze, and this Redis is its home.
--
-- KEYS 1 meta  2 w  3 resv  4 key  5 buyer  6 ref  7 ev  8 note        (all of one sale)
-- ARGV 1 run id of this Redis  2 node  3 epoch held until now  4 serial for the event  5 serial for the note  6 note
--      7 count of what is lost  8 ev of what the node read  9 '1' = what the node knows of state and stock is what is here
-- Returns {'OK', epoch, ev, gen, state} | {'NOTFROZEN', state} | {'MOVED'} (not what the node read) | {'FENCED'} | {'GONE'}
-- Asked again after a lost answer it gives the same OK. An open sale comes back paused where anything but
-- reservations is lost: a pause, a price or a stock may be among it.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local meta = redis.call('HMGET', KEYS[1], 'gen', 'state', 'ev', 'clock_ms', 'thaw', 'n_note', 'n_resv', 'n_key',
    'n_buyer', 'n_ref', 'thawed')
if not meta[1] then return {'GONE'} end
for i = 3, 6 do
    if redis.call('HLEN', KEYS[i]) ~= tonumber(meta[4 + i]) then return {'GONE'} end
end
if redis.call('XLEN', KEYS[7]) ~= tonumber(meta[3]) or redis.call('XLEN', KEYS[8]) ~= tonumber(meta[6]) then return {'GONE'} end
local mine = redis.call('HGET', KEYS[2], ARGV[2])
local epoch = now
if mine then
    local held, seq = string.match(mine, '^(%d+)|(%d+)|')
    -- Only to one that does not know its new epoch yet: who knows it has gone on since, and asks about another loss.
    local is_repeated = held == meta[11] and seq == '0' and tonumber(ARGV[3]) < tonumber(held)
    if is_repeated and meta[2] ~= 'frozen' then return {'OK', held, meta[3], meta[1], meta[2]} end
    held = tonumber(held)
    if held > tonumber(ARGV[3]) then return {'FENCED'} end
    epoch = math.max(now, held + 1)
elseif redis.call('HLEN', KEYS[2]) > 0 then
    return {'FENCED'}
end
if meta[2] ~= 'frozen' then return {'NOTFROZEN', meta[2]} end
if meta[3] ~= ARGV[8] then return {'MOVED'} end
now = math.max(now, tonumber(meta[4]))
local at = string.format('%.0f', now)
local gen, ev, state = tonumber(meta[1]) + 1, tonumber(meta[3]) + 1, meta[5] or 'paused'
if state == 'open' and ARGV[9] ~= '1' then state = 'paused' end
local data = string.format('{"to":"%s","gen":%.0f,"lost":%s}', state, gen, ARGV[7])
-- The one that can still refuse goes first.
redis.call('XADD', KEYS[8], ARGV[5] .. '-0', 't', ARGV[6])
redis.call('XADD', KEYS[7], string.format('%.0f-%.0f', gen, ev), 'at', at, 'c', 'E|' .. ARGV[4] .. '|sale.thawed|||' .. data)
redis.call('HSET', KEYS[1], 'home', ARGV[1], 'gen', string.format('%.0f', gen), 'ev', string.format('%.0f', ev),
    'state', state, 'clock_ms', at, 'n_note', tonumber(meta[6]) + 1, 'thawed', string.format('%.0f', epoch))
redis.call('HDEL', KEYS[1], 'thaw')
redis.call('HSET', KEYS[2], ARGV[2], string.format('%.0f|0|%s|%.0f|', epoch, at, ev))
return {'OK', string.format('%.0f', epoch), string.format('%.0f', ev), string.format('%.0f', gen), state}
