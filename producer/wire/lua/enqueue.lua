-- Enqueues rows: single flight, admission and XADD as one step.
-- KEYS[1] stream of the caller's lane   KEYS[2] stream of the other lane   KEYS[3..] wait key of each row
-- ARGV[1] lane   ARGV[2] the caller's hint channel   ARGV[3] time budget in ms   ARGV[4] most jobs on the lane
-- ARGV[5] most rows in a job   ARGV[6] job header   ARGV[7..] text of each row
-- Returns {rows added, rows attached to a flight, jobs on the lane, rows handled}. A lane that is nearly full takes,
-- of an interactive call, nothing; of a bulk call, the first rows: the others are for the caller to send again.
local time = redis.call('TIME')
local deadline_ms = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])

-- A row is in flight while its entry is on a stream. An interactive caller does not wait behind the bulk lane.
local there = {}
local function in_flight(wait)
  local entry = redis.call('HGET', wait, 'entry') or ''
  local lane, id = string.match(entry, '^(%a+):(.+)$')
  if not lane or (lane == 'bulk' and ARGV[1] ~= 'bulk') then return false end
  if there[entry] == nil then
    there[entry] = #redis.call('XRANGE', lane == ARGV[1] and KEYS[1] or KEYS[2], id, id) > 0
  end
  return there[entry]
end

local fresh = {}
for row = 3, #KEYS do
  if not in_flight(KEYS[row]) then fresh[#fresh + 1] = row end
end

local rows_per_job, queued = tonumber(ARGV[5]), redis.call('XLEN', KEYS[1])
local room = math.max(0, tonumber(ARGV[4]) - queued)
local jobs, handled = math.ceil(#fresh / rows_per_job), #KEYS - 2
if jobs > room then
  if ARGV[1] ~= 'bulk' then return {0, 0, queued, 0} end
  jobs, handled = room, fresh[room * rows_per_job + 1] - 3
  for n = #fresh, room * rows_per_job + 1, -1 do fresh[n] = nil end
end

for first = 1, #fresh, rows_per_job do
  local last, entry = math.min(first + rows_per_job - 1, #fresh), {}
  for n = first, last do entry[#entry + 1], entry[#entry + 2] = n - first, ARGV[fresh[n] + 4] end
  local id = redis.call('XADD', KEYS[1], '*', 'job', ARGV[6], unpack(entry))
  for n = first, last do redis.call('HSET', KEYS[fresh[n]], 'entry', ARGV[1] .. ':' .. id) end
end

local lease_ms = tonumber(ARGV[3]) + 1000
for row = 3, handled + 2 do
  if tonumber(redis.call('HGET', KEYS[row], ARGV[2]) or 0) < deadline_ms then
    redis.call('HSET', KEYS[row], ARGV[2], string.format('%d', deadline_ms))
  end
  if redis.call('PTTL', KEYS[row]) < lease_ms then redis.call('PEXPIRE', KEYS[row], lease_ms) end
end
return {#fresh, handled - #fresh, queued + jobs, handled}
