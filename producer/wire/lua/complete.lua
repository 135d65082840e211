-- Ends rows, and the jobs that have no row left: wakes the waiters, then acknowledges and deletes the entries.
-- The replies must be written before: a waiter that wakes finds its result.
-- KEYS[1] stream of the lane   KEYS[2] load   KEYS[3..] wait key of each row
-- ARGV[1] consumer group   ARGV[2] lane   ARGV[3..#KEYS] digest of each row   then id, rows and bytes of each entry done
-- Returns the number of entries deleted.
local hints = {}  -- a wait key that is no hash has no waiters: its error has no fields
for row = 3, #KEYS do
  local waiters = redis.pcall('HGETALL', KEYS[row])
  for field = 1, #waiters, 2 do
    local channel = waiters[field]
    if channel ~= 'entry' then hints[channel] = (hints[channel] or '') .. ARGV[row] end
  end
  redis.call('DEL', KEYS[row])
end
for channel, digests in pairs(hints) do redis.call('PUBLISH', channel, digests) end

local deleted = 0
for entry = #KEYS + 1, #ARGV, 3 do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[entry])
  if redis.call('XDEL', KEYS[1], ARGV[entry]) == 1 then
    redis.pcall('HINCRBY', KEYS[2], ARGV[2] .. ':rows', -ARGV[entry + 1])
    local load = redis.pcall('HINCRBY', KEYS[2], ARGV[2] .. ':bytes', -ARGV[entry + 2])
    if type(load) == 'table' then redis.call('DEL', KEYS[2]) end
    deleted = deleted + 1
  end
end
return deleted
