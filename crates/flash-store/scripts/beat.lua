#!lua
-- Says that a node lives, or that it leaves.
--
-- KEYS 1 nodes  2 store
-- ARGV 1 node  2 start  3 '1' = it leaves  4 store name
-- Returns {'OK', now_ms} | {'FENCED'} (a later start of this node lives, or another node that took this one for dead)
--   | {'GONE'} (this is another store, or an emptied one)
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and tonumber(string.match(known, '^(%d+)|')) > tonumber(ARGV[2]) then return {'FENCED'} end
if redis.call('GET', KEYS[2]) ~= ARGV[4] then return {'GONE'} end
if not known and redis.call('HLEN', KEYS[1]) > 0 then return {'FENCED'} end
if ARGV[3] == '1' then
    redis.call('HDEL', KEYS[1], ARGV[1])
else
    redis.call('HSET', KEYS[1], ARGV[1], string.format('%s|%.0f', ARGV[2], now))
end
return {'OK', string.format('%.0f', now)}
