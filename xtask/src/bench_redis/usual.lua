#!lua
-- One purchase of one item, whole: what services on Redis and Lua run once for each request.
--
-- KEYS 1 stock (units left)  2 key (buyer|key -> serial)  3 buyer (buyer|item -> units)
--      4 resv (serial -> record)  5 ev (stream)                                    all of one sale
-- ARGV 1 serial  2 buyer|key  3 buyer|item  4 units  5 most units of a buyer, 0 for no limit  6 record
--
-- Returns R (reserved) | S (sold out) | L (the buyer's limit is reached) | K serial|record (the key won before).

local call = redis.call
local units, limit = tonumber(ARGV[4]), tonumber(ARGV[5])

local known = call('HGET', KEYS[2], ARGV[2])
if known then return 'K' .. known .. '|' .. call('HGET', KEYS[4], known) end
if tonumber(call('GET', KEYS[1]) or '0') < units then return 'S' end
if limit > 0 and tonumber(call('HGET', KEYS[3], ARGV[3]) or '0') + units > limit then return 'L' end

call('DECRBY', KEYS[1], ARGV[4])
call('HSET', KEYS[2], ARGV[2], ARGV[1])
call('HINCRBY', KEYS[3], ARGV[3], ARGV[4])
call('HSET', KEYS[4], ARGV[1], ARGV[6])
call('XADD', KEYS[5], '*', 'serial', ARGV[1], 'resv', ARGV[6])
return 'R'
