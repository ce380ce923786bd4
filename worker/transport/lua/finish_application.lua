-- Record that a gateway has applied a vector, move its book and acknowledge the entry, in one step.
--
-- KEYS[1] results         stream of results
-- KEYS[2] inbox           the gateway's inbox: hash of the request id
-- KEYS[3] book            the gateway's book: hash of the strategy
-- ARGV[1] group           consumer group
-- ARGV[2] consumer        name of the consumer
-- ARGV[3] entry_id        entry of the request
-- ARGV[4] weights_sha256  SHA-256 of the weights
-- ARGV[5] as_of           as-of session as YYYYMMDD
-- ARGV[6] activation      activation number
-- ARGV[7] request_id      request id
-- ARGV[8] remember_ms     milliseconds to remember it
-- ARGV[9] symbols         symbols of the vector with a weight, comma-separated
--
-- Returns `applied`, also when repeated after a lost reply, or `overtaken` if another consumer owns the book or has
-- applied something newer meanwhile: this application took longer than the others were kept off.
if redis.call('HGET', KEYS[2], 'state') == 'applied' then
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
  return 'applied'
end

local time = redis.call('TIME')
local book = redis.call('HMGET', KEYS[3], 'as_of', 'activation', 'holder')
local overtaken = book[3] and book[3] ~= ARGV[2]
if book[1] then
  local as_of, activation = tonumber(book[1]), tonumber(book[2])
  overtaken = overtaken or tonumber(ARGV[5]) < as_of
    or (tonumber(ARGV[5]) == as_of and tonumber(ARGV[6]) <= activation)
end

redis.call('HSET', KEYS[2], 'state', 'applied', 'weights_sha256', ARGV[4], 'entry', ARGV[3], 'consumer', ARGV[2],
  'applied_at_ms', string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)))
redis.call('PEXPIRE', KEYS[2], ARGV[8])
if not overtaken then
  redis.call('HSET', KEYS[3], 'as_of', ARGV[5], 'activation', ARGV[6], 'request_id', ARGV[7], 'symbols', ARGV[9])
  redis.call('HDEL', KEYS[3], 'opening', 'holder', 'held_until')
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
return overtaken and 'overtaken' or 'applied'
