#!lua
-- Registers a node and numbers this start of it. One node may live at a time for now.
--
-- KEYS 1 nodes  2 start  3 store
-- ARGV 1 node  2 life_ms (a node not seen for so long is dead)  3 least start  4 name for a new store
-- Returns {'OK', start, now_ms, store name} | {'BUSY', node, milliseconds since it was seen}
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local nodes = redis.call('HGETALL', KEYS[1])
local dead = {}
for i = 1, #nodes, 2 do
    local seen = tonumber(string.match(nodes[i + 1], '|(%d+)$'))
    if nodes[i] ~= ARGV[1] then
        if now - seen < tonumber(ARGV[2]) then return {'BUSY', nodes[i], string.format('%.0f', now - seen)} end
        dead[#dead + 1] = nodes[i]
    end
end
local start = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, tonumber(ARGV[3]))
local name = redis.call('GET', KEYS[3]) or ARGV[4]
redis.call('SET', KEYS[3], name)
redis.call('SET', KEYS[2], string.format('%.0f', start))
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f|%.0f', start, now))
if #dead > 0 then redis.call('HDEL', KEYS[1], unpack(dead)) end
return {'OK', string.format('%.0f', start), string.format('%.0f', now), name}
