-- Removes consumers that have not been seen for long and hold nothing; one with pending entries keeps its place, since
-- its entries would be lost with it.
-- KEYS[1] stream of a lane   ARGV[1] consumer group   ARGV[2] least idle time in ms   ARGV[3] a consumer to keep
-- Returns the number of consumers removed.
local removed = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local name, pending, idle_ms = consumer[2], consumer[4], consumer[6]
  if pending == 0 and idle_ms > tonumber(ARGV[2]) and name ~= ARGV[3] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], name)
    removed = removed + 1
  end
end
return removed
