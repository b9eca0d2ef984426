-- Which replicas there are, and since when they have told this server all the time.
--
-- KEYS: [1] when each replica was here last.
-- ARGV: [1] who is here; [2] after how many milliseconds one is gone; [3] whether it stays (1), or leaves (0); [4] after how
--       many milliseconds without any of them they must have been cut off, or all gone.
-- Answers: the time in milliseconds; for how many milliseconds at least one of them was here; how many there are.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, gone = ARGV[1], tonumber(ARGV[2])

local cut_off = tonumber(ARGV[4])

local replicas, newest, entries = 1, 0, redis.call('HGETALL', KEYS[1])
for place = 1, #entries, 2 do
  local who, seen = entries[place], tonumber(entries[place + 1])
  if who ~= 'since' then
    if not seen or seen <= now - gone then
      redis.call('HDEL', KEYS[1], who)
    else
      newest = math.max(newest, seen)
      replicas = replicas + (who == me and 0 or 1)
    end
  end
end

local since = tonumber(redis.call('HGET', KEYS[1], 'since'))
if not since or since > now or newest < now - cut_off then
  since = now
  redis.call('HSET', KEYS[1], 'since', string.format('%.0f', now))
end
if ARGV[3] == '0' then
  redis.call('HDEL', KEYS[1], me)
else
  redis.call('HSET', KEYS[1], me, string.format('%.0f', now))
end
-- Remembered for longer than anything that is counted in days is worth.
redis.call('PEXPIRE', KEYS[1], 604800000)
return { string.format('%.0f', now), string.format('%.0f', now - since), replicas }
