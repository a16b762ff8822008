-- What every script about a host begins with: its state, and what follows from it. Times are seconds of this server's own
-- clock, whatever the clocks of the workers say. Rates are requests a second.
local STATE, HOLDERS, KNOWN, HOST = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local KEPT = 7200         -- a host that nobody asks about for so long is forgotten
local WINDOW = 4          -- requests are counted over about so many seconds
local BURST = 1           -- what a host was not asked within so many seconds may be asked at once
local GROWTH = 1.05       -- the rate of a slowed host grows by so much in a second while all is well
local SLOWEST = 1         -- no host is slowed below this rate, unless its limit is lower
local FIRST_PAUSE, LONGEST_PAUSE, LONGEST_ASKED = 5, 300, 3600

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

local state = {}
local fields = redis.call('HGETALL', STATE)
for i = 1, #fields, 2 do
    state[fields[i]] = tonumber(fields[i + 1]) or fields[i + 1]
end

-- Writes the whole state; what has become nil is gone.
local function save()
    local flat = {}
    for field, value in pairs(state) do
        flat[#flat + 1] = field
        flat[#flat + 1] = type(value) == 'number' and string.format('%.17g', value) or value
    end
    redis.call('DEL', STATE)
    if #flat == 0 then
        return -- as after the memory of this server was wiped: nothing is known of the host
    end
    redis.call('HSET', STATE, unpack(flat))
    redis.call('EXPIRE', STATE, KEPT)
    redis.call('ZREMRANGEBYSCORE', KNOWN, 0, now - KEPT)
    redis.call('ZADD', KNOWN, now, HOST)
    redis.call('EXPIRE', KNOWN, KEPT)
end

-- Counts requests in windows that follow each other.
local function count(requests)
    local window = math.floor(now / WINDOW)
    if state.window ~= window then
        local goes_on = state.window == window - 1 and state.count > 0
        state.before = goes_on and state.count or 0
        state.counted_from = goes_on and state.counted_from or now
        state.window, state.count = window, 0
    end
    state.count = state.count + requests
end

-- The rate of the last seconds, or since the host is being asked, if that is not so long ago.
local function observed()
    count(0)
    local requests = state.before * (1 - (now / WINDOW) % 1) + state.count
    return requests / math.max(1, math.min(WINDOW, now - state.counted_from))
end

-- The rate that holds: the limit, or a lower one where the host was slowed; 0: none.
local function effective(limit)
    if state.slow and (limit == 0 or state.slow < limit) then
        return state.slow
    end
    return limit
end
