#!lua
-- One batch of a sale: judged as a whole, then change by change; what is refused by itself leaves the others alone.
-- Everything is read and decided first, in tables; only then is anything written, with few variadic calls.
--
-- KEYS 1 meta  2 w  3 resv  4 key  5 buyer  6 ref  7 ev  8 note        (all of one sale)
-- ARGV 1 home  2 node  3 epoch  4 seq, then the changes, each: op, count of its arguments, arguments; but for
--   R a run of reserves of one item: count n, item, units, lines, n serials, n key fields, n buyer fields
--     (in columns, so that whole ranges of ARGV go into one call)
--   D draft          line, serial, sale_no, definition, starts_ms, ends_ms, window_ms, n, then n x (stock, limit or '')
--   S state          line, to, from ('published open paused'); to = 'retired' marks the sale, its state stays
--   O open           line without its data, n, then n x (item, units that stay unreleased, or what there is)
--   U unpublish      line without its data; only where nothing was ever reserved
--   A change price   line, definition
--   V wave           line, item, units, due_ms, ref field or '', ref value
--   K count attempts line
--   Z freeze         line
--   M reserve many   serial, buyer, key, lines, n, then n x (item, units); items ascend
--   C confirm        line, reservation, payment, from ('r' | 'e'), ref field, ref value, n, then n x (item, units)
--   P refuse payment, protect price   line, reservation, ref field, ref value
--   E extend         line, reservation, expires_ms
--   L release        line, reservation, pooled ('1': its units become unreleased), n, then n x (item, units)
--   X expire         the same
--   F refund         line, reservation, restock ('1'), whole ('1'), ref field or '', ref value, n, then n x (item, units)
--   T stock change   line, item, delta, ref field, ref value
--   N note           serial, text; tells of the change before it, and is left out where that was refused
-- A line is what goes into ev for that change: E|serial|type|reservation|reference|data.
--
-- Returns {verdict, at_ms, ev, results}; results: index:CODE:detail of each refused change (from 0), parted by ','.
--   OK | ALREADY (the results of then) | GONE why | HOME home | FENCED | LOST seq | FROZEN
-- Codes: KNOWN serial, NOTSTARTED, PAUSED, ENDED, LIMIT, SOLD available, EARLY, STALE what.

local META, W, RESV, KEY, BUYER, REF, EV, NOTE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local home, node, epoch, seq = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local call = redis.call
local sub, match, gmatch, find = string.sub, string.match, string.gmatch, string.find
local concat = table.concat
-- Below the limit of what Lua's unpack puts on its stack.
local CHUNK = 4000

-- ---- the batch as a whole

local meta = call('HMGET', META, 'home', 'gen', 'state', 'starts_ms', 'ends_ms', 'window_ms', 'clock_ms', 'ev',
    'n_resv', 'n_key', 'n_buyer', 'n_ref', 'n_note', 'retired', 'grace_ms')
local sizes = {call('HLEN', RESV), call('HLEN', KEY), call('HLEN', BUYER), call('HLEN', REF), call('XLEN', NOTE),
    call('XLEN', EV)}
local mine = call('HGET', W, node)
local is_new = not meta[1]
local was_new = is_new
if is_new then
    -- This node has joined and nobody ever wrote an event.
    local is_first = ARGV[5] == 'D' and mine and match(mine, '^%d+|0|%d+|0|')
    for i = 1, 6 do is_first = is_first and sizes[i] == 0 end
    if not is_first then return {'GONE', '0', '0', 'meta'} end
    meta = {home, '1', '', '0', '0', '0', '0', '0', '0', '0', '0', '0', '0', '0'}
else
    local names = {'resv', 'key', 'buyer', 'ref', 'note'}
    for i = 1, 5 do
        if sizes[i] ~= tonumber(meta[8 + i]) then return {'GONE', '0', '0', names[i]} end
    end
    if sizes[6] ~= tonumber(meta[8]) then return {'GONE', '0', '0', 'ev'} end
    if meta[1] ~= home then return {'HOME', '0', meta[8], meta[1]} end
end
-- Another node took over; or nobody has it.
if not mine then return {call('HLEN', W) > 0 and 'FENCED' or 'LOST', '0', meta[8], '0'} end
local my_epoch, my_seq, my_at, my_ev, my_results = match(mine, '^(%d+)|(%d+)|(%d+)|(%d+)|(.*)$')
my_epoch, my_seq = tonumber(my_epoch), tonumber(my_seq)
if my_epoch > epoch then return {'FENCED', '0', meta[8], ''} end
if my_epoch < epoch then return {'LOST', '0', meta[8], '0'} end
if seq == my_seq then return {'ALREADY', my_at, my_ev, my_results} end
if seq ~= my_seq + 1 then return {'LOST', '0', meta[8], tostring(my_seq)} end

local gen, state = meta[2], meta[3]
local starts_ms, ends_ms, window_ms = tonumber(meta[4]), tonumber(meta[5]), tonumber(meta[6])
local retired = meta[14]
-- Set when Redis came back: until then nobody is told that it was too late to pay.
local grace_ms = tonumber(meta[15] or '0')
local time = call('TIME')
local now = math.max(tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), tonumber(meta[7]))
local now_text = string.format('%.0f', now)

-- ---- reads: one call for each kind

-- Reads fields of a hash into a table; absent ones are false.
local function read(hash, fields, into)
    for from = 1, #fields, CHUNK do
        local to = math.min(from + CHUNK - 1, #fields)
        local values = call('HMGET', hash, unpack(fields, from, to))
        for i = from, to do into[fields[i]] = values[i - from + 1] end
    end
    return into
end

local key_fields, buyer_fields, resv_fields, ref_fields = {}, {}, {}, {}
local is_only_freeze = true
local keys_count, buyers_count = 0, 0
local at, argc = 5, #ARGV
while at <= argc do
    local op = ARGV[at]
    if op == 'R' then
        at = at + 5 + 3 * tonumber(ARGV[at + 1])
        is_only_freeze = false
    else
        if op == 'M' then
            local buyer = ARGV[at + 3]
            resv_fields[#resv_fields + 1] = ARGV[at + 2]
            keys_count = keys_count + 1
            key_fields[keys_count] = buyer .. '|' .. ARGV[at + 4]
            for i = 1, tonumber(ARGV[at + 6]) do
                buyers_count = buyers_count + 1
                buyer_fields[buyers_count] = buyer .. '|' .. ARGV[at + 5 + 2 * i]
            end
        elseif op == 'C' or op == 'P' or op == 'L' or op == 'X' or op == 'F' or op == 'E' then
            resv_fields[#resv_fields + 1] = ARGV[at + 3]
            local ref = (op == 'C' or op == 'F') and ARGV[at + 6] or (op == 'P' and ARGV[at + 4] or '')
            if ref ~= '' then
                ref_fields[#ref_fields + 1] = ref
                ref_fields[#ref_fields + 1] = 'of|' .. ARGV[at + 3]
            end
        elseif op == 'T' then
            ref_fields[#ref_fields + 1] = ARGV[at + 5]
        elseif op == 'V' and ARGV[at + 6] ~= '' then
            ref_fields[#ref_fields + 1] = ARGV[at + 6]
        end
        if op ~= 'Z' and op ~= 'N' then is_only_freeze = false end
        at = at + 2 + tonumber(ARGV[at + 1])
    end
end
if state == 'frozen' and not is_only_freeze then return {'FROZEN', now_text, meta[8], ''} end

local keys = read(KEY, key_fields, {})
local resvs = read(RESV, resv_fields, {})
local refs = read(REF, ref_fields, {})
-- The buyers of reservations that move: their sums change too.
local function facts_of(record)
    local s, created, expires, buyer, key, payment, lines =
        match(record, '^(%l)|(%d+)|(%d+)|([^|]*)|([^|]*)|([^|]*)|(.*)$')
    return {state = s, created = created, expires = expires, buyer = buyer, key = key, payment = payment, lines = lines}
end
for _, serial in ipairs(resv_fields) do
    local record = resvs[serial]
    if record then
        local facts = facts_of(record)
        for item in gmatch(facts.lines, '(%d+),[^;]*') do
            buyer_fields[#buyer_fields + 1] = facts.buyer .. '|' .. item
        end
    end
end
local buyers_before = read(BUYER, buyer_fields, {})
local buyers = {}
local function held(field)
    return tonumber(buyers[field] or buyers_before[field] or '0')
end

local items, definition = {}, nil
local function item_of(index)
    local item = items[index]
    if item == nil then
        -- A new plan brings all its items; what is stored are those of the plan before.
        local text = not definition and call('HGET', META, 'i:' .. index)
        if text then
            local stock, unreleased, available, reserved, sold, limit =
                match(text, '^(%d+),(%d+),(%d+),(%d+),(%d+),(%d*)$')
            item = {stock = tonumber(stock), unreleased = tonumber(unreleased), available = tonumber(available),
                reserved = tonumber(reserved), sold = tonumber(sold), limit = tonumber(limit), text = limit}
        else
            item = false
        end
        items[index] = item
    end
    return item
end

-- ---- decisions

local refused, lines_out, notes = {}, {}, {}
local resv_set, resv_count, resv_new, ref_new = {}, 0, 0, 0
local key_out, ref_out, lines_count = {}, {}, 0
local thaw
local serial_first
-- The plan with another price.
local repriced
-- What every new record begins with; another plan has another window.
local function head_of_records() return 'r|' .. now_text .. '|' .. string.format('%.0f', now + window_ms) .. '|' end
local record_head = head_of_records()

-- The (item, units) pairs of a change, from its count on.
local function pairs_at(place)
    local list = {}
    for i = 1, tonumber(ARGV[place]) do
        list[i] = {ARGV[place + 2 * i - 1], tonumber(ARGV[place + 2 * i])}
    end
    return list
end

-- Each item once: an item that came twice would be judged twice by what was there before.
local function is_ascending(place)
    local last = -1
    for i = 1, tonumber(ARGV[place]) do
        local index = tonumber(ARGV[place + 2 * i - 1])
        if index <= last then return false end
        last = index
    end
    return true
end

-- What the lines of a record say of units: 'item,units;...', in their order.
local function are_all(facts, list)
    local i = 0
    for item, units in gmatch(facts.lines, '(%d+),(%d+)[^;]*') do
        i = i + 1
        if not list[i] or list[i][1] ~= item or list[i][2] ~= tonumber(units) then return false end
    end
    return i == #list
end

local function keep(serial, record)
    -- Of two values of one field the later one stays.
    resv_count = resv_count + 2
    resv_set[resv_count - 1], resv_set[resv_count] = serial, record
    resvs[serial] = record
end

local function record_of(facts)
    return concat({facts.state, facts.created, facts.expires, facts.buyer, facts.key, facts.payment, facts.lines}, '|')
end

local function put_ref(field, value)
    if not refs[field] then ref_new = ref_new + 1 end
    ref_out[#ref_out + 1] = field
    ref_out[#ref_out + 1] = value
    refs[field] = value
end

-- Writes a decision down, and with its reservation where it is to be found.
local function decide(field, value, serial)
    if field == '' then return end
    put_ref(field, value)
    if serial then
        local of = 'of|' .. serial
        put_ref(of, refs[of] and (refs[of] .. ' ' .. field) or field)
    end
end

local ops = {}

-- Why a sale that is not open takes no reservation.
local function why_closed()
    if state == 'draft' or state == 'published' then return 'NOTSTARTED:' end
    if state == 'paused' then return 'PAUSED:' end
    return 'ENDED:'
end

local function tell(line)
    lines_count = lines_count + 1
    lines_out[lines_count] = line
end

local function put_reservation(serial, key_field, lines)
    keys[key_field] = serial
    resv_new = resv_new + 1
    key_out[2 * resv_new - 1], key_out[2 * resv_new] = key_field, serial
    local record = record_head .. key_field .. '||' .. lines
    resvs[serial] = record
    resv_count = resv_count + 2
    resv_set[resv_count - 1], resv_set[resv_count] = serial, record
    tell('R|' .. serial .. '|' .. key_field .. '|' .. lines)
end

-- A run of reserves of one item, from its count on; `index` is the place of the first among the changes. Gives why the
-- last one was refused.
local function reserve_run(a, index)
    local n, item_index, units_text, lines = tonumber(ARGV[a]), ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
    local serials, fields, sums = a + 3, a + 3 + n, a + 3 + 2 * n
    local known = call('HMGET', KEY, unpack(ARGV, fields + 1, fields + n))
    local held_before = call('HMGET', BUYER, unpack(ARGV, sums + 1, sums + n))
    local numbered = call('HMGET', RESV, unpack(ARGV, serials + 1, serials + n))
    local closed = (state ~= 'open' or now >= ends_ms) and why_closed()
    local item, units, tail = item_of(item_index), tonumber(units_text), '||' .. lines
    local left, limit = item and item.available, item and item.limit
    local took, serials_taken, fields_taken, why = 0, nil, nil, nil
    for i = 1, n do
        local serial, key_field, buyer_field = ARGV[serials + i], ARGV[fields + i], ARGV[sums + i]
        local won, had = keys[key_field] or known[i], buyers[buyer_field] or held_before[i]
        -- The usual buyer has nothing yet: the sum is the text that came.
        local sum = had and (tonumber(had) + units) or units
        why = nil
        if won then
            why = 'KNOWN:' .. won
        elseif closed then
            why = closed
        elseif numbered[i] or resvs[serial] then
            why = 'STALE:serial'
        elseif not item then
            why = 'STALE:item'
        elseif limit and sum > limit then
            why = 'LIMIT:'
        elseif left < units then
            why = 'SOLD:' .. left
        end
        if why then
            refused[#refused + 1] = (index + i - 1) .. ':' .. why
            if not serials_taken then
                -- The columns of the event have to be made anew, without this one.
                serials_taken, fields_taken = {}, {}
                for done = 1, i - 1 do
                    serials_taken[done], fields_taken[done] = ARGV[serials + done], ARGV[fields + done]
                end
            end
        else
            left = left - units
            took = took + 1
            if serials_taken then serials_taken[took], fields_taken[took] = serial, key_field end
            buyers[buyer_field] = had and sum or units_text
            if buyers_before[buyer_field] == nil then buyers_before[buyer_field] = held_before[i] end
            local record = record_head .. key_field .. tail
            keys[key_field], resvs[serial] = serial, record
            resv_new = resv_new + 1
            key_out[2 * resv_new - 1], key_out[2 * resv_new] = key_field, serial
            resv_count = resv_count + 2
            resv_set[resv_count - 1], resv_set[resv_count] = serial, record
        end
    end
    if took == 0 then return why end
    item.available = left
    item.reserved = item.reserved + took * units
    if took == n then
        tell('W;' .. lines .. ';' .. concat(ARGV, ',', serials + 1, serials + n) .. ';'
            .. concat(ARGV, ',', fields + 1, fields + n))
    else
        tell('W;' .. lines .. ';' .. concat(serials_taken, ',') .. ';' .. concat(fields_taken, ','))
    end
    return why
end

function ops.M(a)
    local serial, buyer, key = ARGV[a], ARGV[a + 1], ARGV[a + 2]
    local key_field = buyer .. '|' .. key
    local known = keys[key_field]
    if known then return 'KNOWN:' .. known end
    if state ~= 'open' or now >= ends_ms then return why_closed() end
    if resvs[ARGV[a]] then return 'STALE:serial' end
    local n = tonumber(ARGV[a + 4])
    if not is_ascending(a + 4) then return 'STALE:lines' end
    for i = 1, n do
        local index, units = ARGV[a + 3 + 2 * i], tonumber(ARGV[a + 4 + 2 * i])
        local item = item_of(index)
        if not item then return 'STALE:item' end
        if item.limit and held(buyer .. '|' .. index) + units > item.limit then return 'LIMIT:' end
    end
    for i = 1, n do
        local item = items[ARGV[a + 3 + 2 * i]]
        if item.available < tonumber(ARGV[a + 4 + 2 * i]) then return 'SOLD:' .. item.available end
    end
    for i = 1, n do
        local index, units = ARGV[a + 3 + 2 * i], tonumber(ARGV[a + 4 + 2 * i])
        local item, field = items[index], buyer .. '|' .. index
        item.available = item.available - units
        item.reserved = item.reserved + units
        buyers[field] = held(field) + units
    end
    put_reservation(serial, key_field, ARGV[a + 3])
end

function ops.C(a)
    local serial, from, field = ARGV[a + 1], ARGV[a + 3], ARGV[a + 4]
    local record = resvs[serial]
    if not record then return 'STALE:reservation' end
    if refs[field] then return 'STALE:reference' end
    local facts, list = facts_of(record), pairs_at(a + 6)
    if facts.state ~= from or not are_all(facts, list) then return 'STALE:state' end
    for _, line in ipairs(list) do
        local item = item_of(line[1])
        if from == 'e' and item.available < line[2] then return 'STALE:units' end
    end
    for _, line in ipairs(list) do
        local item, held_field = items[line[1]], facts.buyer .. '|' .. line[1]
        if from == 'e' then
            item.available = item.available - line[2]
            buyers[held_field] = held(held_field) + line[2]
        else
            item.reserved = item.reserved - line[2]
        end
        item.sold = item.sold + line[2]
    end
    facts.state, facts.payment = 'c', ARGV[a + 2]
    keep(serial, record_of(facts))
    decide(field, ARGV[a + 5], serial)
    tell(ARGV[a])
end

function ops.P(a)
    local record = resvs[ARGV[a + 1]]
    if not record then return 'STALE:reservation' end
    if refs[ARGV[a + 2]] then return 'STALE:reference' end
    -- A reserved one is paid, not refused.
    if sub(record, 1, 1) == 'r' then return 'STALE:state' end
    decide(ARGV[a + 2], ARGV[a + 3], ARGV[a + 1])
    tell(ARGV[a])
end

function ops.E(a)
    local serial, expires = ARGV[a + 1], ARGV[a + 2]
    local record = resvs[serial]
    if not record then return 'STALE:reservation' end
    local facts = facts_of(record)
    if facts.state ~= 'r' or tonumber(facts.expires) >= tonumber(expires) then return 'STALE:state' end
    facts.expires = expires
    keep(serial, record_of(facts))
    tell(ARGV[a])
end

-- Units of a reservation that leaves `reserved` go back on sale, or wait for an announced time.
local function give_back(a, to)
    local serial, goes = ARGV[a + 1], ARGV[a + 2] == '1' and 'unreleased' or 'available'
    local record = resvs[serial]
    if not record then return 'STALE:reservation' end
    local facts, list = facts_of(record), pairs_at(a + 3)
    if facts.state ~= 'r' or not are_all(facts, list) then return 'STALE:state' end
    if to == 'e' and math.max(tonumber(facts.expires), grace_ms) > now then return 'EARLY:' end
    for _, line in ipairs(list) do
        local item, field = item_of(line[1]), facts.buyer .. '|' .. line[1]
        item.reserved = item.reserved - line[2]
        item[goes] = item[goes] + line[2]
        buyers[field] = held(field) - line[2]
    end
    facts.state = to
    keep(serial, record_of(facts))
    tell(ARGV[a])
end

function ops.L(a) return give_back(a, 'l') end
function ops.X(a) return give_back(a, 'e') end

function ops.F(a)
    local serial, restock, whole, field = ARGV[a + 1], ARGV[a + 2] == '1', ARGV[a + 3] == '1', ARGV[a + 4]
    local record = resvs[serial]
    if not record then return 'STALE:reservation' end
    if field ~= '' and refs[field] then return 'STALE:reference' end
    local facts, list = facts_of(record), pairs_at(a + 6)
    if facts.state ~= 'c' then return 'STALE:state' end
    if not is_ascending(a + 6) then return 'STALE:lines' end
    local lines, by_item, is_all = {}, {}, true
    for _, line in ipairs(list) do by_item[line[1]] = line[2] end
    for text in gmatch(facts.lines, '[^;]+') do
        local index, units, price, refunded, restocked = match(text, '^(%d+),(%d+),(%d+),?(%d*),?(%d*)$')
        local more = by_item[index] or 0
        by_item[index] = nil
        refunded = tonumber(refunded ~= '' and refunded or '0') + more
        restocked = tonumber(restocked ~= '' and restocked or '0') + (restock and more or 0)
        if refunded > tonumber(units) then return 'STALE:units' end
        is_all = is_all and refunded == tonumber(units)
        lines[#lines + 1] = index .. ',' .. units .. ',' .. price
            .. (refunded > 0 and (',' .. refunded .. ',' .. restocked) or '')
    end
    if next(by_item) or is_all ~= whole then return 'STALE:lines' end
    if restock then
        for _, line in ipairs(list) do
            local item, held_field = item_of(line[1]), facts.buyer .. '|' .. line[1]
            item.sold = item.sold - line[2]
            item.available = item.available + line[2]
            buyers[held_field] = held(held_field) - line[2]
        end
    end
    facts.lines = concat(lines, ';')
    if whole then facts.state = 'f' end
    keep(serial, record_of(facts))
    decide(field, ARGV[a + 5], serial)
    tell(ARGV[a])
end

function ops.T(a)
    local item, delta, field = item_of(ARGV[a + 1]), tonumber(ARGV[a + 2]), ARGV[a + 3]
    if not item then return 'STALE:item' end
    if refs[field] then return 'STALE:reference' end
    if item.available + delta < 0 or item.stock + delta > 4294967295 then return 'STALE:units' end
    item.stock = item.stock + delta
    item.available = item.available + delta
    decide(field, ARGV[a + 4])
    tell(ARGV[a])
end

function ops.D(a)
    if not is_new and state ~= 'draft' then return 'STALE:state' end
    definition = {'sale_no', ARGV[a + 2], 'def', ARGV[a + 3], 'starts_ms', ARGV[a + 4], 'ends_ms', ARGV[a + 5],
        'window_ms', ARGV[a + 6]}
    if is_new then serial_first = ARGV[a + 1] end
    starts_ms, ends_ms, window_ms = tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6])
    record_head = head_of_records()
    items = {}
    local n = tonumber(ARGV[a + 7])
    for i = 0, n - 1 do
        local stock, limit = tonumber(ARGV[a + 8 + 2 * i]), ARGV[a + 9 + 2 * i]
        items[tostring(i)] = {stock = stock, unreleased = stock, available = 0, reserved = 0, sold = 0,
            limit = tonumber(limit), text = limit}
    end
    definition.items = n
    state, is_new, repriced = 'draft', false, nil
    tell(ARGV[a])
end

function ops.S(a)
    local to, from = ARGV[a + 1], ARGV[a + 2]
    if to == 'retired' then
        if retired == '1' or state ~= 'closed' then return 'STALE:state' end
        retired = '1'
    else
        if not find(' ' .. from .. ' ', ' ' .. state .. ' ', 1, true) then return 'STALE:state' end
        state = to
    end
    tell(ARGV[a])
end

-- Of every item all units of one kind become another, but for those that stay; gives the data of the event.
local function turn_units(from, to, stays)
    local turned, index = {}, 0
    while item_of(tostring(index)) do
        local item = items[tostring(index)]
        local units = math.max(item[from] - (stays[tostring(index)] or 0), 0)
        if units > 0 then
            turned[#turned + 1] = string.format('[%d,%.0f]', index, units)
            item[to] = item[to] + units
            item[from] = item[from] - units
        end
        index = index + 1
    end
    return '{"units":[' .. concat(turned, ',') .. ']}'
end

function ops.O(a)
    if state ~= 'published' then return 'STALE:state' end
    if now < starts_ms then return 'EARLY:' end
    local stays = {}
    for _, line in ipairs(pairs_at(a + 1)) do stays[line[1]] = line[2] end
    state = 'open'
    tell(ARGV[a] .. turn_units('unreleased', 'available', stays))
end

function ops.U(a)
    if state ~= 'published' and state ~= 'open' and state ~= 'paused' then return 'STALE:state' end
    if sizes[1] + resv_new > 0 then return 'STALE:reservations' end
    state = 'draft'
    tell(ARGV[a] .. turn_units('available', 'unreleased', {}))
end

function ops.A(a)
    if state ~= 'paused' then return 'STALE:state' end
    repriced = ARGV[a + 1]
    tell(ARGV[a])
end

function ops.V(a)
    local item, units, field = item_of(ARGV[a + 1]), tonumber(ARGV[a + 2]), ARGV[a + 4]
    if state == 'draft' or state == 'closed' or state == 'frozen' then return 'STALE:state' end
    if not item then return 'STALE:item' end
    if field ~= '' and refs[field] then return 'STALE:reference' end
    if now < tonumber(ARGV[a + 3]) then return 'EARLY:' end
    if item.unreleased < units then return 'STALE:units' end
    item.unreleased = item.unreleased - units
    item.available = item.available + units
    decide(field, ARGV[a + 5])
    tell(ARGV[a])
end

function ops.K(a)
    if state == 'frozen' then return 'STALE:state' end
    tell(ARGV[a])
end

function ops.Z(a)
    if state ~= 'frozen' then
        thaw, state = state, 'frozen'
        tell(ARGV[a])
    end
end

local code
function ops.N(a)
    -- Of the change before it, which is left out where that was refused; the code stays that change's.
    if not code then notes[#notes + 1] = {ARGV[a], ARGV[a + 1]} end
end

at = 5
local index = 0
while at <= argc do
    local op = ARGV[at]
    if op == 'R' then
        local n = tonumber(ARGV[at + 1])
        code = reserve_run(at + 1, index)
        index = index + n
        at = at + 5 + 3 * n
    else
        if op == 'N' then
            ops.N(at + 2)
        else
            code = ops[op](at + 2)
            if code then refused[#refused + 1] = index .. ':' .. code end
        end
        index = index + 1
        at = at + 2 + tonumber(ARGV[at + 1])
    end
end

-- ---- the books, before anything is written

local item_out = {}
for place, item in pairs(items) do
    if item then
        local balance = item.stock - item.unreleased - item.available - item.reserved - item.sold
        local is_sound = balance == 0 and item.unreleased >= 0 and item.available >= 0 and item.reserved >= 0
            and item.sold >= 0
        if not is_sound then return {'GONE', '0', '0', 'books of item ' .. place} end
        item_out[#item_out + 1] = 'i:' .. place
        item_out[#item_out + 1] = string.format('%.0f,%.0f,%.0f,%.0f,%.0f,%s', item.stock, item.unreleased,
            item.available, item.reserved, item.sold, item.text)
    end
end
local buyer_set, buyer_del, buyer_new, buyers_set = {}, {}, 0, 0
for field, units in pairs(buyers) do
    local was_there = buyers_before[field]
    if units ~= 0 then
        if tonumber(units) < 0 then return {'GONE', '0', '0', 'books of buyer ' .. field} end
        buyers_set = buyers_set + 2
        buyer_set[buyers_set - 1], buyer_set[buyers_set] = field, units
        if not was_there then buyer_new = buyer_new + 1 end
    elseif was_there then
        buyer_del[#buyer_del + 1] = field
        buyer_new = buyer_new - 1
    end
end

-- ---- writes; the streams first, since they alone can still refuse (an id behind the last one)

local function write(command, key, fields)
    for from = 1, #fields, CHUNK do
        call(command, key, unpack(fields, from, math.min(from + CHUNK - 1, #fields)))
    end
end

local ev = tonumber(meta[8])
for _, note in ipairs(notes) do call('XADD', NOTE, note[1] .. '-0', 't', note[2]) end
if lines_count > 0 then
    ev = ev + 1
    call('XADD', EV, gen .. '-' .. ev, 'at', now_text, 'c', concat(lines_out, '\n'))
end
write('HSET', RESV, resv_set)
write('HSET', KEY, key_out)
write('HSET', BUYER, buyer_set)
write('HDEL', BUYER, buyer_del)
write('HSET', REF, ref_out)
local results = concat(refused, ',')
local out = {'clock_ms', now_text, 'ev', ev, 'n_resv', sizes[1] + resv_new, 'n_key', sizes[2] + #key_out / 2,
    'n_buyer', sizes[3] + buyer_new}
local function set(field, value)
    out[#out + 1] = field
    out[#out + 1] = value
end
if #ref_out > 0 or was_new then set('n_ref', sizes[4] + ref_new) end
if #notes > 0 or was_new then set('n_note', sizes[5] + #notes) end
if state ~= meta[3] then set('state', state) end
if retired ~= meta[14] or was_new then set('retired', retired) end
if was_new then
    set('home', home)
    set('gen', gen)
end
if serial_first then set('first_serial', serial_first) end
if thaw then set('thaw', thaw) end
if definition then
    -- Items of the draft before.
    local old = definition.items
    while call('HDEL', META, 'i:' .. old) == 1 do old = old + 1 end
    for i = 1, #definition, 2 do set(definition[i], definition[i + 1]) end
end
if repriced then set('def', repriced) end
for i = 1, #item_out, 2 do set(item_out[i], item_out[i + 1]) end
write('HSET', META, out)
call('HSET', W, node, concat({ARGV[3], ARGV[4], now_text, ev, results}, '|'))
return {'OK', now_text, tostring(ev), results}
