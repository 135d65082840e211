-- Takes a worker's name, unless somebody else took it since the caller looked.
-- KEYS[1] heartbeats   ARGV[1] name   ARGV[2] heartbeat that the caller saw ('' for none)   ARGV[3] first heartbeat
-- Returns 1 if the name is taken for the caller, 0 if it must look again.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
