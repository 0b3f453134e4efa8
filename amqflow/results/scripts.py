"""The Lua of the Redis result store: one script per verb, a batch per call.

Every task has two keys in one cluster slot: Celery's own ``celery-task-meta-<id>`` (opaque JSON)
and our record, a hash of ``epoch, attempt, fence, state, owner, lease, extra``. ``state`` is
empty while an attempt runs, else SUCCESS, FAILURE, REVOKED, or RETRY of exactly that attempt;
``lease`` is milliseconds of the server's clock; ``extra`` is opaque JSON.

A script answers with an array: one text with a token per entry, joined by ``;``, then two strings
(JSON, extra) for each entry whose outcome is asked for. So the usual batch is one string to
parse. Every script may run twice: a lost answer costs a fence number, never an outcome.
"""

from __future__ import annotations

from typing import Final

from amqflow.stores.redis import Script

_SHARED: Final = """
local function outcome(meta, record, blobs)
  blobs[#blobs + 1] = redis.call('GET', meta) or ''
  blobs[#blobs + 1] = redis.call('HGET', record, 'extra') or ''
end
local function show(meta, json, expires)
  if expires > 0 then
    redis.call('SETEX', meta, expires, json)
  else
    redis.call('SET', meta, json)
  end
  redis.call('PUBLISH', meta, json)
end
local function answer(tokens, blobs)
  table.insert(blobs, 1, table.concat(tokens, ';'))
  return blobs
end
local ENDED = {SUCCESS = true, FAILURE = true, REVOKED = true}
local function ended_meta(meta)
  return string.match(redis.call('GET', meta) or '', '^{"status": ?"(%u+)"')
end
"""

#: ARGV: milliseconds a record lives while it runs, seconds Celery's key lives (0: for ever); then
#: per entry "epoch attempt once lease", owner, JSON of STARTED or "". Tokens: R fence (run),
#: S epoch attempt state (settled), T (stale), B (busy).
BEGIN: Final = Script(
    _SHARED
    + """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl, expires = ARGV[1], tonumber(ARGV[2])
local tokens, blobs = {}, {}
for i = 1, #KEYS / 2 do
  local meta, record = KEYS[2 * i - 1], KEYS[2 * i]
  local owner, started = ARGV[3 * i + 1], ARGV[3 * i + 2]
  local epoch, attempt, once, lease = string.match(ARGV[3 * i], '^(%d+) (%d+) (%d) (%d+)$')
  epoch, attempt, once = tonumber(epoch), tonumber(attempt), once == '1'
  local old = redis.call('HMGET', record, 'epoch', 'attempt', 'fence', 'state', 'owner', 'lease')
  local token, fence = nil, 1
  if old[1] then
    local old_epoch, old_attempt, state = tonumber(old[1]), tonumber(old[2]), old[4]
    fence = old[3] + 1
    if epoch < old_epoch then
      token = 'T'
    elseif epoch > old_epoch then
      redis.call('DEL', meta)
    elseif ENDED[state] or (state == 'RETRY' and old_attempt == attempt) then
      -- A result somebody forgot cannot be passed on: such a task runs again, unless `once`.
      if once or old_attempt > attempt or redis.call('EXISTS', meta) == 1 then
        token = 'S ' .. old[1] .. ' ' .. old[2] .. ' ' .. state
        outcome(meta, record, blobs)
      end
    elseif old_attempt > attempt then
      token = 'T'
    elseif old_attempt == attempt and once and old[5] ~= owner and tonumber(old[6]) > now then
      token = 'B'
    end
    if not token then
      redis.call('HDEL', record, 'extra')
    end
  end
  if not token then
    token = 'R ' .. string.format('%d', fence)
    redis.call('HSET', record, 'epoch', epoch, 'attempt', attempt, 'fence', fence, 'state', '',
      'owner', owner, 'lease', string.format('%d', now + lease))
    redis.call('PEXPIRE', record, ttl)
    if started ~= '' then
      show(meta, started, expires)
    end
  end
  tokens[i] = token
end
return answer(tokens, blobs)
"""
)

#: ARGV: milliseconds a record lives while it runs or waits for a retry, and after its end (0: for
#: ever), seconds Celery's key lives (0: for ever); then per entry "epoch attempt fence state",
#: JSON, extra. Tokens: W (written), S epoch attempt state (another outcome stands), X (a later
#: attempt or epoch stands), C (contested: another owner holds the fence).
FINISH: Final = Script(
    _SHARED
    + """
local running, after, expires = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local tokens, blobs = {}, {}
for i = 1, #KEYS / 2 do
  local meta, record = KEYS[2 * i - 1], KEYS[2 * i]
  local json, extra = ARGV[3 * i + 2], ARGV[3 * i + 3]
  local epoch, attempt, fence, state = string.match(ARGV[3 * i + 1], '^(%d+) (%d+) (%d+) (%u+)$')
  epoch, attempt, fence = tonumber(epoch), tonumber(attempt), tonumber(fence)
  local old = redis.call('HMGET', record, 'epoch', 'attempt', 'fence', 'state')
  local token = nil
  if not old[1] then
    -- Flushed or expired: the first writer wins, and what Celery's key holds came first.
    local found = ended_meta(meta)
    if ENDED[found] then
      token = string.format('S %d %d %s', epoch, attempt, found)
      outcome(meta, record, blobs)
    end
  else
    local old_epoch, old_attempt = tonumber(old[1]), tonumber(old[2])
    local old_fence, old_state = tonumber(old[3]), old[4]
    if epoch < old_epoch then
      token = 'X'
    elseif epoch == old_epoch then
      if attempt < old_attempt then
        token = 'X'
      elseif ENDED[old_state] or (old_state == 'RETRY' and attempt == old_attempt) then
        token = 'S ' .. old[1] .. ' ' .. old[2] .. ' ' .. old_state
        outcome(meta, record, blobs)
      elseif attempt == old_attempt and fence < old_fence then
        token = 'C'
      end
    end
    fence = math.max(fence, old_fence)
    -- As Celery: within an epoch a SUCCESS, whoever wrote it, is not replaced by anything else.
    if not token and state ~= 'SUCCESS' and epoch == old_epoch
        and ended_meta(meta) == 'SUCCESS' then
      token = 'S ' .. old[1] .. ' ' .. old[2] .. ' SUCCESS'
      outcome(meta, record, blobs)
    end
  end
  if not token then
    token = 'W'
    show(meta, json, expires)
    redis.call('HSET', record, 'epoch', epoch, 'attempt', attempt, 'fence', fence, 'state', state,
      'extra', extra)
    if state == 'RETRY' then
      redis.call('PEXPIRE', record, running)
    elseif after > 0 then
      redis.call('PEXPIRE', record, after)
    else
      redis.call('PERSIST', record)
    end
  end
  tokens[i] = token
end
return answer(tokens, blobs)
"""
)

#: ARGV: milliseconds a record lives while it runs; then per entry "epoch attempt fence lease",
#: owner. Tokens: 1 (extended), 0 (the fence is no longer ours).
RENEW: Final = Script(
    _SHARED
    + """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl = ARGV[1]
local tokens = {}
for i = 1, #KEYS / 2 do
  local record = KEYS[2 * i]
  local epoch, attempt, fence, lease = string.match(ARGV[2 * i], '^(%d+) (%d+) (%d+) (%d+)$')
  local until_ = string.format('%d', now + lease)
  local old = redis.call('HMGET', record, 'epoch', 'attempt', 'fence', 'state')
  if not old[1] then
    -- Flushed in mid-run: nobody else holds it, so the lease is put back.
    redis.call('HSET', record, 'epoch', epoch, 'attempt', attempt, 'fence', fence, 'state', '',
      'owner', ARGV[2 * i + 1], 'lease', until_)
    redis.call('PEXPIRE', record, ttl)
    tokens[i] = '1'
  elseif old[1] == epoch and old[2] == attempt and old[3] == fence and old[4] == '' then
    redis.call('HSET', record, 'lease', until_)
    redis.call('PEXPIRE', record, ttl)
    tokens[i] = '1'
  else
    tokens[i] = '0'
  end
end
return answer(tokens, {})
"""
)

#: ARGV: epoch, JSON, seconds Celery's key lives (0: for ever). Answers 1 (shown) or 0.
SET_STATE: Final = Script(
    _SHARED
    + """
local meta, record, epoch = KEYS[1], KEYS[2], tonumber(ARGV[1])
local old = redis.call('HMGET', record, 'epoch', 'state')
if not old[1] then
  if ENDED[ended_meta(meta)] then
    return 0
  end
elseif ENDED[old[2]] then
  if tonumber(old[1]) >= epoch then
    return 0
  end
  -- The next epoch is on its way and says so: it is open from now on.
  redis.call('HSET', record, 'epoch', epoch, 'attempt', 0, 'state', '', 'lease', 0, 'extra', '')
elseif old[2] == 'RETRY' or ended_meta(meta) == 'SUCCESS' then
  -- The attempt has ended: a late word from it must not hide when the next one is due.
  return 0
end
show(meta, ARGV[2], tonumber(ARGV[3]))
return 1
"""
)
