-- Decide whether a gateway may apply a vector, and record its intent, in one step.
--
-- KEYS[1]  results         stream of results
-- KEYS[2]  inbox           the gateway's inbox: hash of the request id
-- KEYS[3]  book            the gateway's book: hash of the strategy
-- ARGV[1]  group           consumer group
-- ARGV[2]  consumer        name of the consumer
-- ARGV[3]  entry_id        entry of the request
-- ARGV[4]  weights_sha256  SHA-256 of the weights
-- ARGV[5]  as_of           as-of session as YYYYMMDD
-- ARGV[6]  activation      activation number
-- ARGV[7]  valid_until_ms  end of validity, epoch milliseconds
-- ARGV[8]  remember_ms     milliseconds to remember it
-- ARGV[9]  hold_ms         milliseconds for which other consumers keep off the book
-- ARGV[10] symbols         symbols of the vector with a weight, comma-separated
-- ARGV[11] now_ms          instant by which validity is judged, epoch milliseconds; '' = the server's clock
--
-- Returns {status, detail, attempts, symbols}:
--   apply      apply it now; `attempts` counts this one; `symbols` are those the book may contain
--   repeated   decided before as `detail`; acknowledged
--   conflict   this request id came with other weights before, whose SHA-256 is `detail`; acknowledged
--   not_newer  the book's (as-of, activation) `detail` is as new or newer; acknowledged
--   expired    the clock has passed valid until; acknowledged
--   busy       consumer `detail` is applying to this book; nothing was written
--   fenced     another consumer took the entry over; nothing was written
--
-- Repeated after a lost reply, it answers `apply` again with one attempt more: the first was never begun.
local inbox = redis.call('HMGET', KEYS[2], 'weights_sha256', 'state', 'attempts')
local attempts = tonumber(inbox[3] or '0')

local function settle(status, detail)
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
  return {status, detail, attempts, ''}
end

local function record(state)
  redis.call('HSET', KEYS[2], 'state', state, 'weights_sha256', ARGV[4], 'entry', ARGV[3], 'consumer', ARGV[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[8])
end

if inbox[1] and inbox[1] ~= ARGV[4] then
  redis.call('HINCRBY', KEYS[2], 'conflicts', 1)
  return settle('conflict', inbox[1])
end
if inbox[2] and inbox[2] ~= 'applying' then
  return settle('repeated', inbox[2])
end

local owned = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #owned == 0 then
  return {'fenced', '', attempts, ''}
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local book = redis.call('HMGET', KEYS[3], 'as_of', 'activation', 'symbols', 'opening', 'holder', 'held_until')
if book[5] and book[5] ~= ARGV[2] and now < tonumber(book[6]) then
  return {'busy', book[5], attempts, ''}
end

if book[1] then
  local as_of, activation = tonumber(book[1]), tonumber(book[2])
  local newer = tonumber(ARGV[5]) > as_of or (tonumber(ARGV[5]) == as_of and tonumber(ARGV[6]) > activation)
  if not newer then
    record('not_newer')
    return settle('not_newer', book[1] .. '#' .. book[2])
  end
end
local judged = ARGV[11] ~= '' and tonumber(ARGV[11]) or now
if judged >= tonumber(ARGV[7]) then
  record('expired')
  return settle('expired', string.format('%.0f', judged))
end

-- What an unfinished application may have bought stays named until one is finished: the next closes it.
local opening = book[4] or ''
if attempts == 0 then
  opening = opening .. ',' .. ARGV[10]
end
record('applying')
redis.call('HSET', KEYS[2], 'attempts', attempts + 1)
redis.call('HSET', KEYS[3], 'opening', opening, 'holder', ARGV[2], 'held_until',
  string.format('%.0f', now + tonumber(ARGV[9])))
return {'apply', '', attempts + 1, (book[3] or '') .. ',' .. opening}
