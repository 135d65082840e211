-- Drops a job whose time budget is over, unless somebody who joined later still waits for one of its rows.
-- KEYS[1] stream of the lane   KEYS[2] load   KEYS[3..] wait key of each row
-- ARGV[1] consumer group   ARGV[2] lane   ARGV[3] id of the entry   ARGV[4] its rows   ARGV[5] its bytes
-- Returns 1 if the job was dropped, 0 if it must run.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
for row = 3, #KEYS do
  local waiters = redis.pcall('HGETALL', KEYS[row])
  for field = 1, #waiters, 2 do
    if waiters[field] ~= 'entry' and (tonumber(waiters[field + 1]) or 0) > now_ms then return 0 end
  end
end
for row = 3, #KEYS do
  local entry = redis.pcall('HGET', KEYS[row], 'entry')
  if type(entry) == 'table' or entry == ARGV[2] .. ':' .. ARGV[3] then redis.call('DEL', KEYS[row]) end
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
if redis.call('XDEL', KEYS[1], ARGV[3]) == 1 then
  redis.pcall('HINCRBY', KEYS[2], ARGV[2] .. ':rows', -ARGV[4])
  redis.pcall('HINCRBY', KEYS[2], ARGV[2] .. ':bytes', -ARGV[5])
end
return 1
