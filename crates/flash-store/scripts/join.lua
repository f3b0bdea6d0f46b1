#!lua
-- Gives a node the next epoch of a sale: whoever held it under an earlier one is fenced, and so is every other node, since
-- one writes at a time for now.
--
-- KEYS 1 meta  2 w
-- ARGV 1 node
-- Returns {epoch, ev, gen, home, state}; of a sale that is not there yet: ev '0', gen '0', home '', state ''
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local meta = redis.call('HMGET', KEYS[1], 'ev', 'gen', 'home', 'state')
local mine = redis.call('HGET', KEYS[2], ARGV[1])
local epoch = now
if mine then epoch = math.max(now, tonumber(string.match(mine, '^(%d+)|')) + 1) end
for _, other in ipairs(redis.call('HKEYS', KEYS[2])) do
    if other ~= ARGV[1] then redis.call('HDEL', KEYS[2], other) end
end
local ev = meta[1] or '0'
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f|0|%.0f|%s|', epoch, now, ev))
return {string.format('%.0f', epoch), ev, meta[2] or '0', meta[3] or '', meta[4] or ''}
