//! Postern policy plugins in Zig. One file, nothing but std, no allocation for an event.
//!
//! A plugin is a type. One value of it is made for each stage that the plugin is used at, from the stage's configuration,
//! and is given the stage's events. This one greets the upstream:
//!
//!     const postern = @import("postern");
//!
//!     const Greet = struct {
//!         greeting: []const u8,
//!
//!         pub fn configure(stage: *postern.Stage) !Greet {
//!             const text = stage.config.member("greeting").text() orelse "";
//!             return .{ .greeting = try stage.allocator.dupe(u8, text) };
//!         }
//!
//!         pub fn on(greet: *Greet, event: *const postern.Event, result: *postern.Result) !void {
//!             _ = event;
//!             result.setHeader("x-greeting", greet.greeting);
//!         }
//!     };
//!
//!     pub const panic = postern.panic;
//!     comptime {
//!         postern.plugin(Greet);
//!     }
//!
//! The gateway makes several instances of a module, each with memory of its own, and gives any of them any event: what must
//! outlive an event travels by Result.carry or in the host's state. Calls on one instance never overlap. What is handed out
//! points into the frame and is valid until the function returns. The normative text behind this file is ABI.md; what a plugin
//! sees and may do is declared in plugin.hcl.
//!
//! Zig 0.14 to 0.17. Compiled for the machine it runs on, for tests, it asks whatever `backend` is set to.

const std = @import("std");
const builtin = @import("builtin");
const in_module = builtin.target.cpu.arch.isWasm();

/// Sizes of the ABI, in octets.
pub const min_frame = 64 << 10; // the frame buffer to begin with
pub const max_frame = (16 << 20) - 1; // a frame, and a result
pub const max_answer = 64 << 10; // an answer of a host operation
pub const max_input = 192 << 10; // a host operation's input
pub const max_detail = 1 << 10; // the text of an answer or an error
pub const max_depth = 32; // nesting of a value

/// What happened. Another event than these is to be answered by doing nothing.
pub const EventKind = enum(u16) {
    configure = 0, // never reaches the plugin's on
    request = 1, // a request has come to the stage: every phase before response
    request_body = 2, // a piece of the request's body (body modes stream and events)
    response = 3, // the response's head has come
    response_body = 4, // the response's body, by body mode
    fetched = 5, // the fetches asked for are done: Event.answer
    account = 6, // the exchange is over. Always, also when the client has gone
    _,
};

/// The fixed points on a request's way.
pub const Phase = enum(u8) {
    authenticate = 0, // who calls
    authorize = 1, // may this caller do this
    admit = 2, // may it be done now
    route = 3, // which upstream or model target
    request = 4, // change what goes out
    response = 5, // change what comes back
    account = 6, // settle
    _,
};

/// Why the host did not do what was asked.
pub const Error = error{
    NotFound, // no such key, account or hold
    Conflict, // cas: the stored value differs
    Denied, // the operator did not grant what this needs
    Invalid, // malformed or too large
    TooSmall, // the answer is larger than there is memory for
    Unavailable, // the host can not do it now
    Insufficient, // hold: the balance does not cover it
    Expired, // key: revoked or expired, or the account is closed
    Limit, // too many operations in one event, or no room in the plugin's state or cache
    Unknown, // the host is too old for this
};

/// The errors by their numbers: -1 is the first.
const errors = [_]Error{
    error.NotFound,     error.Conflict, error.Denied, error.Invalid, error.TooSmall, error.Unavailable,
    error.Insufficient, error.Expired,  error.Limit,  error.Unknown,
};

/// What fail returns: the result says why.
pub const Failure = error{PluginFailed};

/// What a plugin decided; the functions of Result set it.
pub const Action = enum(u8) { proceed = 0, respond = 1, await_fetches = 2, done = 4, failed = 5 };

const Operation = enum(u8) {
    header_set = 1,
    header_add = 2,
    header_remove = 3,
    attribute = 4,
    body_replace = 5,
    body_splice = 6,
    body_drop = 7,
    respond = 8,
    respond_body = 9,
    carry = 10,
    fetch = 11,
    meter = 12,
};

const Code = enum(u32) {
    time = 1,
    random = 2,
    get = 3,
    put = 4,
    cas = 5,
    delete = 6,
    count = 7,
    key = 8,
    hold = 9,
    settle = 10,
    release = 11,
    cache_get = 12,
    cache_put = 13,
};

fn readInt(comptime T: type, octets: []const u8) T {
    return std.mem.readInt(T, octets[0..@sizeOf(T)], .little);
}

// ---- The host's two functions ----

const imports = struct {
    extern "postern" fn log(level: i32, message: [*]const u8, length: usize) void;
    extern "postern" fn op(code: u32, in: [*]const u8, in_length: usize, out: [*]u8, out_capacity: usize) i64;
};

/// What stands in for the host outside a module.
pub const Backend = struct {
    log: *const fn (level: Level, message: []const u8) void,
    op: *const fn (code: u32, in: []const u8, out: []u8) i64,
};

/// Set by tests before they run an Instance; a module has no use for it.
pub var backend: ?Backend = null;

/// Levels of the log.
pub const Level = enum(i32) { debug = 0, info = 1, warn = 2, err = 3, _ };

/// Writes a line to the gateway's log under the plugin's name. Lines are cut at 1,024 octets, and the operator bounds what an
/// event may write, 8,192 octets if nothing is written. Write no personal data and no secrets.
pub fn log(level: Level, message: []const u8) void {
    if (in_module) return imports.log(@intFromEnum(level), message.ptr, message.len);
    if (backend) |b| b.log(level, message);
}

/// Makes std.log write to the gateway's log, with `pub const std_options: std.Options = .{ .logFn = postern.logFn };`.
pub fn logFn(comptime level: std.log.Level, comptime scope: @TypeOf(.scope), comptime format: []const u8, args: anytype) void {
    const prefix = if (scope == .default) "" else @tagName(scope) ++ ": ";
    var line: [1 << 10]u8 = undefined;
    const text = std.fmt.bufPrint(&line, prefix ++ format, args) catch &line;
    log(switch (level) {
        .debug => .debug,
        .info => .info,
        .warn => .warn,
        .err => .err,
    }, text);
}

/// Logs what a panic says and traps: the event fails, on_error decides, and the gateway makes another instance. It takes effect
/// with `pub const panic = postern.panic;` in the plugin's root file.
pub const panic = std.debug.FullPanic(struct {
    fn call(message: []const u8, _: ?usize) noreturn {
        @branchHint(.cold);
        log(.err, message);
        @trap();
    }
}.call);

// ---- Memory ----

/// Takes new memory, in pages of 64 KiB, from the end of the memory, so that it stands beside any allocator; null at the operator's
/// limits.memory.
fn newPages(n: usize) ?[*]u8 {
    if (in_module) {
        const before = @wasmMemoryGrow(0, n / page);
        return if (before < 0) null else @ptrFromInt(@as(usize, @intCast(before)) * page);
    }
    return (std.heap.page_allocator.alloc(u8, n) catch return null).ptr;
}

const page = 64 << 10;

/// Memory that is written from the front. One made by `fixed` is the caller's and never grows; the SDK's own grow.
pub const Buffer = struct {
    data: []u8,
    len: usize = 0,
    max: usize,
    /// Something did not fit. From then on nothing more is written, so it is enough to look once, at the end.
    full: bool = false,

    /// A buffer of the caller's memory, to put a key or a value together in.
    pub fn fixed(memory: []u8) Buffer {
        return .{ .data = memory, .max = memory.len };
    }

    /// What has been written; null when it did not all fit.
    pub fn written(b: *const Buffer) ?[]const u8 {
        return if (b.full) null else b.data[0..b.len];
    }

    fn clear(b: *Buffer) void {
        b.len = 0;
        b.full = false;
    }

    fn room(b: *Buffer, more: usize) bool {
        return (!b.full and b.data.len - b.len >= more) or b.grow(more);
    }

    /// Makes room for more octets behind what is there. Where the buffer is the end of the memory it grows in place.
    fn grow(b: *Buffer, more: usize) bool {
        @branchHint(.cold);
        if (b.full or more > b.max - b.len) {
            b.full = true;
            return false;
        }
        const want = @min(@max(b.len + more, 2 * b.data.len), b.max);
        const size = (want + page - 1) / page * page;
        if (in_module and b.data.len % page == 0 and @intFromPtr(b.data.ptr) + b.data.len == @wasmMemorySize(0) * page) {
            if (newPages(size - b.data.len)) |_| {
                b.data = b.data.ptr[0..size];
                return true;
            }
        } else if (newPages(size)) |fresh| {
            @memcpy(fresh[0..b.len], b.data[0..b.len]);
            b.data = fresh[0..size];
            return true;
        }
        b.full = true;
        return false;
    }

    /// Appends octets.
    pub fn add(b: *Buffer, octets: []const u8) void {
        if (!b.room(octets.len)) return;
        @memcpy(b.data[b.len..][0..octets.len], octets);
        b.len += octets.len;
    }

    /// Appends a number in decimal.
    pub fn addInt(b: *Buffer, n: i64) void {
        var digits: [20]u8 = undefined;
        var at = digits.len;
        var rest: u64 = @abs(n);
        while (true) {
            at -= 1;
            digits[at] = '0' + @as(u8, @intCast(rest % 10));
            rest /= 10;
            if (rest == 0) break;
        }
        if (n < 0) {
            at -= 1;
            digits[at] = '-';
        }
        b.add(digits[at..]);
    }

    fn addRaw(b: *Buffer, comptime T: type, v: T) void {
        if (!b.room(@sizeOf(T))) return;
        std.mem.writeInt(T, b.data[b.len..][0..@sizeOf(T)], v, .little);
        b.len += @sizeOf(T);
    }

    /// writeNull and its like append one encoded value. After writeList come count values, after writeObject count times
    /// writeKey and a value.
    pub fn writeNull(b: *Buffer) void {
        b.addRaw(u8, @intFromEnum(Kind.null));
    }

    pub fn writeBool(b: *Buffer, v: bool) void {
        b.addRaw(u8, @intFromEnum(Kind.bool));
        b.addRaw(u8, @intFromBool(v));
    }

    pub fn writeInt(b: *Buffer, v: i64) void {
        b.addRaw(u8, @intFromEnum(Kind.int));
        b.addRaw(i64, v);
    }

    pub fn writeFloat(b: *Buffer, v: f64) void {
        b.addRaw(u8, @intFromEnum(Kind.float));
        b.addRaw(u64, @bitCast(v));
    }

    pub fn writeString(b: *Buffer, v: []const u8) void {
        b.addRaw(u8, @intFromEnum(Kind.string));
        b.writeKey(v);
    }

    pub fn writeList(b: *Buffer, count: usize) void {
        b.addRaw(u8, @intFromEnum(Kind.list));
        b.addRaw(u32, @intCast(count));
    }

    pub fn writeObject(b: *Buffer, count: usize) void {
        b.addRaw(u8, @intFromEnum(Kind.object));
        b.addRaw(u32, @intCast(count));
    }

    pub fn writeKey(b: *Buffer, key: []const u8) void {
        if (key.len > b.max) b.full = true;
        if (b.full) return;
        b.addRaw(u32, @intCast(key.len));
        b.add(key);
    }

    pub fn writeValue(b: *Buffer, v: Value) void {
        if (v.raw.len > 0) b.add(v.raw) else b.writeNull();
    }
};

// ---- Values ----

/// Kinds of values.
pub const Kind = enum(u8) { null = 0, bool = 1, int = 2, float = 3, string = 4, list = 5, object = 6 };

/// A configuration, an attribute, an argument, or an answer of the host, read in place. What is missing, malformed or of another
/// kind reads as null, 0 or false: reading never fails.
pub const Value = struct {
    /// The value as it is encoded; empty: null.
    raw: []const u8 = "",

    /// The value that octets begin with, checked as a whole; null when they are malformed. Events and hosts hand out checked
    /// values: this is for octets that were carried or stored.
    pub fn of(octets: []const u8) Value {
        return .{ .raw = octets[0..(size(octets, 0) orelse 0)] };
    }

    pub fn kind(v: Value) Kind {
        return if (v.raw.len == 0) .null else @enumFromInt(v.raw[0]);
    }

    /// The value of a bool, else false.
    pub fn boolean(v: Value) bool {
        return v.kind() == .bool and v.raw[1] != 0;
    }

    /// The value of an int, or of a float cut to one (the nearest there is when it is too large), else 0.
    pub fn int(v: Value) i64 {
        if (v.kind() == .int) return readInt(i64, v.raw[1..]);
        const f = v.float();
        if (f >= 0x1p63) return std.math.maxInt(i64);
        if (f < -0x1p63) return std.math.minInt(i64);
        return if (f == f) @intFromFloat(f) else 0;
    }

    /// The value of a float or an int, else 0.
    pub fn float(v: Value) f64 {
        return switch (v.kind()) {
            .float => @bitCast(readInt(u64, v.raw[1..])),
            .int => @floatFromInt(readInt(i64, v.raw[1..])),
            else => 0,
        };
    }

    /// A string's octets, else null.
    pub fn text(v: Value) ?[]const u8 {
        return if (v.kind() == .string) v.raw[5..] else null;
    }

    /// The number of members of a list or an object, else 0.
    pub fn len(v: Value) u32 {
        return switch (v.kind()) {
            .list, .object => readInt(u32, v.raw[1..]),
            else => 0,
        };
    }

    /// The members of a list or an object: `var it = v.members(); while (it.next()) |m| ...`
    pub fn members(v: Value) Members {
        const n = v.len();
        return .{ .rest = if (n > 0) v.raw[5..] else "", .left = n, .object = v.kind() == .object };
    }

    /// An object's member of that key, or null.
    pub fn member(v: Value, key: []const u8) Value {
        if (v.kind() != .object) return .{};
        var it = v.members();
        while (it.next()) |m| {
            if (std.mem.eql(u8, m.key.?, key)) return m.value;
        }
        return .{};
    }

    /// A list's member i, counted from 0, or null.
    pub fn at(v: Value, i: usize) Value {
        if (v.kind() != .list) return .{};
        var it = v.members();
        var n: usize = 0;
        while (it.next()) |m| : (n += 1) {
            if (n == i) return m.value;
        }
        return .{};
    }

    /// Measures the value at the start of octets; null when they do not begin with a whole one.
    fn size(b: []const u8, depth: u32) ?usize {
        if (b.len == 0 or depth > max_depth) return null;
        const found: ?usize = switch (b[0]) {
            0 => 1,
            1 => 2,
            2, 3 => 9,
            4 => if (b.len < 5) null else 5 + @as(usize, @min(readInt(u32, b[1..]), max_string)),
            5, 6 => measure: {
                if (b.len < 5) break :measure null;
                var n: usize = 5;
                for (0..readInt(u32, b[1..])) |_| {
                    if (b[0] == 6) {
                        if (b.len - n < 4) break :measure null;
                        const key = readInt(u32, b[n..]);
                        if (b.len - n - 4 < key) break :measure null;
                        n += 4 + key;
                    }
                    n += size(b[n..], depth + 1) orelse break :measure null;
                }
                break :measure n;
            },
            else => null,
        };
        const n = found orelse return null;
        return if (n <= b.len) n else null;
    }

    /// More than any frame holds, so that 5 more fit into a usize of 32 bits.
    const max_string = 1 << 30;
};

/// A walk through the members of a list or an object.
pub const Members = struct {
    rest: []const u8,
    left: u32,
    object: bool,

    /// One of them; in a list it has no key.
    pub const Member = struct { key: ?[]const u8, value: Value };

    pub fn next(m: *Members) ?Member {
        if (m.left == 0) return null;
        m.left -= 1;
        const key = if (m.object) take(&m.rest) orelse return null else null;
        const v = Value.of(m.rest);
        m.rest = m.rest[v.raw.len..];
        return .{ .key = key, .value = v };
    }
};

/// Takes one string with its length before it off a run.
fn take(run: *[]const u8) ?[]const u8 {
    const b = run.*;
    if (b.len < 4) return null;
    const n = readInt(u32, b);
    if (b.len - 4 < n) return null;
    run.* = b[4 + n ..];
    return b[4..][0..n];
}

// ---- Stages and events ----

/// One use of the plugin in a policy. The plugin's configure is called once for each, in the order of their numbers, before any
/// event.
pub const Stage = struct {
    number: u32,
    phase: Phase,
    config: Value, // an object: the config block's load-time arguments and blocks, defaults filled in
    host: *Host, // random octets; state, cache, accounts and ledger answer error.Unavailable here
    allocator: std.mem.Allocator, // for what has to last as long as the instance
    result: *Result,

    /// Refuses the configuration, as `return stage.fail("...")`: the operator is shown the text with the stage's place in the
    /// files. Another error that configure returns is shown by its name.
    pub fn fail(s: *Stage, why: []const u8) Failure {
        return s.result.fail(why);
    }
};

/// One thing that happened to an exchange.
///
/// Slots are numbered from 0 in the order plugin.hcl declares them for the event's hook: first sees.headers, then sees.attributes,
/// then the per-request arguments of the manifest and of the hook.
pub const Event = struct {
    kind: EventKind,
    phase: Phase,
    flags: u8,
    stage: u32,
    slots: usize,
    host: *Host,
    frame: []const u8,

    /// Takes a frame apart; null when it is not whole.
    fn read(frame: []const u8, host: *Host) ?Event {
        if (frame.len < 32 or readInt(u32, frame) != frame.len) return null;
        const slots = readInt(u32, frame[12..]);
        if (slots > (frame.len - 32) / 8) return null;
        return .{
            .kind = @enumFromInt(readInt(u16, frame[4..])),
            .phase = @enumFromInt(frame[6]),
            .flags = frame[7],
            .stage = readInt(u32, frame[8..]),
            .slots = slots,
            .host = host,
            .frame = frame,
        };
    }

    /// The wall clock when the event was made, in nanoseconds since 1970.
    pub fn time(e: *const Event) i64 {
        return readInt(i64, e.frame[16..]);
    }

    /// A number that is the same in all events of an exchange.
    pub fn exchange(e: *const Event) u64 {
        return readInt(u64, e.frame[24..]);
    }

    /// The body is the end of the message's body.
    pub fn end(e: *const Event) bool {
        return e.flags & 1 != 0;
    }

    /// The body is server-sent events; with body mode events, it is whole events.
    pub fn stream(e: *const Event) bool {
        return e.flags & 2 != 0;
    }

    /// The body was longer than buffer(max) allows: it is the beginning, and can not be changed.
    pub fn truncated(e: *const Event) bool {
        return e.flags & 4 != 0;
    }

    /// The client has gone.
    pub fn gone(e: *const Event) bool {
        return e.flags & 8 != 0;
    }

    /// What this plugin carried from an earlier event of the exchange in the same policy.
    pub fn carried(e: *const Event) ?[]const u8 {
        return e.fixed(0);
    }

    /// The body, a piece of it, or server-sent events; null when the event has none, which is not the same as an empty one.
    pub fn body(e: *const Event) ?[]const u8 {
        return e.fixed(1);
    }

    /// Whether a slot is there: a header that was not sent, or an attribute not yet known, is absent.
    pub fn has(e: *const Event, slot: usize) bool {
        return e.declared(slot) != null;
    }

    /// The first value of the header in a slot.
    pub fn header(e: *const Event, slot: usize) ?[]const u8 {
        var values = e.headers(slot);
        return values.next();
    }

    /// Every value of the header in a slot: `var it = event.headers(slot); while (it.next()) |value| ...`
    pub fn headers(e: *const Event, slot: usize) Headers {
        return .{ .rest = e.declared(slot) orelse "" };
    }

    /// Name and value of every field, for a hook that sees headers = ["*"].
    pub fn fields(e: *const Event, slot: usize) Fields {
        return .{ .rest = e.declared(slot) orelse "" };
    }

    /// The attribute or argument in a slot; absent reads as null.
    pub fn value(e: *const Event, slot: usize) Value {
        return Value.of(e.declared(slot) orelse "");
    }

    /// What came of the fetch of that name, with EventKind.fetched; null when none had the name.
    pub fn answer(e: *const Event, name: []const u8) ?Answer {
        return Answer.of(e.answers().member(name));
    }

    /// An object of all answers, in the order they were asked for: Answer.of takes its members apart. Null with any other event.
    pub fn answers(e: *const Event) Value {
        return if (e.kind == .fetched) Value.of(e.body() orelse "") else .{};
    }

    fn declared(e: *const Event, slot: usize) ?[]const u8 {
        return if (slot < e.slots) e.fixed(slot + 2) else null;
    }

    fn fixed(e: *const Event, slot: usize) ?[]const u8 {
        if (slot >= e.slots) return null;
        const offset = readInt(u32, e.frame[32 + 8 * slot ..]);
        const length = readInt(u32, e.frame[36 + 8 * slot ..]);
        if (offset == 0 or offset > e.frame.len or length > e.frame.len - offset) return null;
        return e.frame[offset..][0..length];
    }
};

/// A walk through the values of a header.
pub const Headers = struct {
    rest: []const u8,

    pub fn next(h: *Headers) ?[]const u8 {
        return take(&h.rest);
    }
};

/// A header field.
pub const Field = struct { name: []const u8, value: []const u8 };

/// A walk through all fields.
pub const Fields = struct {
    rest: []const u8,

    pub fn next(f: *Fields) ?Field {
        const name = take(&f.rest) orelse return null;
        return .{ .name = name, .value = take(&f.rest) orelse return null };
    }
};

/// What came of a fetch.
pub const Answer = struct {
    status: u16, // of the HTTP response, 200 to 599; 0 when there was none
    failure: []const u8, // why there was none: denied, invalid, timeout, unreachable, too_large or busy; empty when there was one
    cached: bool, // the answer had been given to the same request before
    headers: Value, // an object of strings by lower-case name
    body: []const u8, // as it came: nothing is decompressed

    /// A member of Event.answers; null when it is no object.
    pub fn of(v: Value) ?Answer {
        if (v.kind() != .object) return null;
        return .{
            .status = std.math.cast(u16, v.member("status").int()) orelse 0,
            .failure = v.member("error").text() orelse "",
            .cached = v.member("cached").boolean(),
            .headers = v.member("headers"),
            .body = v.member("body").text() orelse "",
        };
    }

    /// An answer came and its status is 2xx.
    pub fn ok(a: Answer) bool {
        return a.failure.len == 0 and a.status >= 200 and a.status <= 299;
    }

    /// The value of a field, by its name in lower case. Several fields of a name are one, joined by ", "; those of set-cookie
    /// by a line feed.
    pub fn header(a: Answer, name: []const u8) ?[]const u8 {
        return a.headers.member(name).text();
    }
};

// ---- Results ----

/// A request that a plugin asks the gateway to make, with the grant fetch. What is left out has its default.
pub const Fetch = struct {
    url: []const u8 = "", // absolute; its origin is one the operator granted. Or else:
    upstream: []const u8 = "", // an upstream's name, which the operator granted,
    path: []const u8 = "", // with the path there, and the query
    method: []const u8 = "", // GET
    headers: []const Field = &.{}, // names in lower case, each once
    body: []const u8 = "", // none with GET and HEAD
    timeout: i64 = 0, // nanoseconds. Default, and most: what the operator allows
    cache: i64 = 0, // nanoseconds: how old an answer may be that was given to the same request. 0: it is made anew
    max: i64 = 0, // octets of the answer's body, at most 1 MiB; default 64 KiB
};

/// What the plugin decides. As it is given to the plugin it means: go on, change nothing. Operations take effect together, after on
/// has returned; the host refuses the whole result when one of them is not allowed (ABI.md says what is allowed where). A result
/// that does not fit into the memory the operator allows, or is longer than 16,777,215 octets, becomes the plugin's failure.
pub const Result = struct {
    action: Action = .proceed,
    ops: Buffer,
    open: usize = 0, // where the last operation begins, whose length is written when it is whole
    text: usize = 0, // where the length of the string it ends with is, or 0

    fn start(r: *Result) void {
        r.action = .proceed;
        r.open = 0;
        r.text = 0;
        r.ops.clear();
    }

    /// Writes the lengths of the last operation.
    fn close(r: *Result) void {
        if (r.ops.full or r.ops.len == 0) return;
        const op = r.ops.data[r.open..r.ops.len];
        const key = readInt(u16, op[2..]);
        std.mem.writeInt(u32, op[4..8], @intCast(op.len - 8 - key), .little);
        if (r.text > 0) std.mem.writeInt(u32, r.ops.data[r.text..][0..4], @intCast(r.ops.len - r.text - 4), .little);
    }

    fn begin(r: *Result, op: Operation, key: []const u8) void {
        r.close();
        const length = std.math.cast(u16, key.len) orelse return r.refuse("a name in the result is longer than 65535 octets");
        if (!r.ops.room(8 + key.len)) return;
        const head = r.ops.data[r.ops.len..][0 .. 8 + key.len];
        head[0] = @intFromEnum(op);
        head[1] = 0;
        std.mem.writeInt(u16, head[2..4], length, .little);
        @memcpy(head[8..], key);
        r.open = r.ops.len;
        r.text = 0;
        r.ops.len += head.len;
    }

    fn put(r: *Result, op: Operation, key: []const u8, value: []const u8) void {
        r.begin(op, key);
        r.ops.add(value);
    }

    fn act(r: *Result, action: Action) void {
        if (r.action != .failed) r.action = action;
    }

    fn refuse(r: *Result, why: []const u8) void {
        @branchHint(.cold);
        if (r.action == .failed) return;
        r.start();
        r.begin(.respond, "plugin_error");
        r.ops.addRaw(u16, 500);
        r.ops.add(why[0..@min(why.len, max_detail)]);
        r.close();
        r.action = .failed;
        r.ops.full = true; // what is written from now on is dropped
    }

    /// Says that the plugin failed, as `return result.fail("...")`: nothing of the result is applied, the text (at most 1,024 octets)
    /// is logged, and the stage's on_error decides: deny, unless the operator wrote allow. Another error that on returns does the
    /// same with its name. A refusal meant for the caller is respond, not a failure.
    pub fn fail(r: *Result, why: []const u8) Failure {
        r.refuse(why);
        return error.PluginFailed;
    }

    /// Adds octets to the value written last: to a header's value, an attribute that is a string, the text or the body of an answer,
    /// what is carried, what replaces a body.
    pub fn append(r: *Result, more: []const u8) void {
        if (r.ops.len > 0) r.ops.add(more);
    }

    /// Adds a number in decimal to the value written last.
    pub fn appendInt(r: *Result, n: i64) void {
        if (r.ops.len > 0) r.ops.addInt(n);
    }

    /// Sets a header field: the request's before the response phase, then the response's, and the answer's together with respond.
    /// The name is lower case.
    pub fn setHeader(r: *Result, name: []const u8, value: []const u8) void {
        r.put(.header_set, name, value);
    }

    /// Adds a field and keeps those of the same name.
    pub fn addHeader(r: *Result, name: []const u8, value: []const u8) void {
        r.put(.header_add, name, value);
    }

    /// Removes every field of that name.
    pub fn removeHeader(r: *Result, name: []const u8) void {
        r.begin(.header_remove, name);
    }

    /// Sets an attribute to a string: one of the host's where the phase allows it (identity.account, identity.key and identity.name in
    /// authenticate), or one of the plugin's own, written "self.name", which expressions read as attribute["<plugin>.name"].
    pub fn setAttribute(r: *Result, name: []const u8, value: []const u8) void {
        r.begin(.attribute, name);
        const text = r.ops.len + 1;
        r.ops.writeString(value);
        if (!r.ops.full) r.text = text;
    }

    /// Sets an attribute to a value that was read: identity.scopes from what Host.key gave, for example; or to one written to a Buffer.
    pub fn setAttributeValue(r: *Result, name: []const u8, value: Value) void {
        r.begin(.attribute, name);
        r.ops.writeValue(value);
    }

    /// Sets an attribute to a list of whole numbers, as targets in the route phase: the order in which the targets are to be tried, as
    /// indexes.
    pub fn setAttributeInts(r: *Result, name: []const u8, values: []const i64) void {
        r.begin(.attribute, name);
        r.ops.writeList(values.len);
        for (values) |v| r.ops.writeInt(v);
    }

    /// Sets an attribute to a list of strings, as identity.scopes in authenticate.
    pub fn setAttributeStrings(r: *Result, name: []const u8, values: []const []const u8) void {
        r.begin(.attribute, name);
        r.ops.writeList(values.len);
        for (values) |v| r.ops.writeString(v);
    }

    /// Puts octets in the place of those that Event.body gave.
    pub fn replaceBody(r: *Result, octets: []const u8) void {
        r.put(.body_replace, "", octets);
    }

    /// Cuts octets out of what Event.body gave and puts others there. Splices ascend and do not overlap.
    pub fn splice(r: *Result, offset: u32, cut: u32, octets: []const u8) void {
        r.begin(.body_splice, "");
        r.ops.addRaw(u32, offset);
        r.ops.addRaw(u32, cut);
        r.ops.add(octets);
    }

    /// Drops the octets Event.body gave.
    pub fn dropBody(r: *Result) void {
        r.begin(.body_drop, "");
    }

    /// Answers the client with a problem document: a status from 400 to 599, a stable code (a-z, 0-9 and _, at most 64 octets) and a
    /// text for the caller, which may be empty (at most 1,024 octets). In authenticate it means: not this identity; other authenticate
    /// stages may still accept the caller. Followed by respondBody the status may be 200 to 599.
    pub fn respond(r: *Result, status: u16, code: []const u8, detail: []const u8) void {
        r.begin(.respond, code);
        r.ops.addRaw(u16, status);
        r.ops.add(detail);
        r.act(.respond);
    }

    /// Gives the answer of respond a body of its own instead of a problem document.
    pub fn respondBody(r: *Result, content_type: []const u8, octets: []const u8) void {
        r.put(.respond_body, content_type, octets);
    }

    /// Keeps octets (at most 64 KiB) for the next events of the exchange at any stage of this plugin in the same policy; they replace
    /// what was carried before.
    pub fn carry(r: *Result, octets: []const u8) void {
        r.put(.carry, "", octets);
    }

    /// Adds n, at least 0, to the plugin's counter of that name (a-z, 0-9 and _), which the gateway shows in its metrics.
    pub fn meter(r: *Result, name: []const u8, n: i64) void {
        r.begin(.meter, name);
        r.ops.addRaw(i64, n);
    }

    /// Asks for no more events at this stage in this exchange; the operations of this result apply.
    pub fn done(r: *Result) void {
        r.act(.done);
    }

    /// Asks for a request, to be made when the result awaits; up to eight with different names (a-z, 0-9 and _, at most 64 octets), which
    /// are made at the same time. Their answers come with EventKind.fetched, see Event.answer. Besides fetches, a result that awaits may
    /// carry and meter, and nothing else.
    pub fn fetch(r: *Result, name: []const u8, q: Fetch) void {
        const texts = .{ "url", "upstream", "path", "method", "body" };
        const ints = .{ "timeout", "cache", "max" };
        var count: usize = @intFromBool(q.headers.len > 0);
        inline for (texts) |key| count += @intFromBool(@field(q, key).len > 0);
        inline for (ints) |key| count += @intFromBool(@field(q, key) != 0);
        const b = &r.ops;
        r.begin(.fetch, name);
        b.writeObject(count);
        inline for (texts) |key| {
            if (@field(q, key).len > 0) {
                b.writeKey(key);
                b.writeString(@field(q, key));
            }
        }
        inline for (ints) |key| {
            if (@field(q, key) != 0) {
                b.writeKey(key);
                b.writeInt(@field(q, key));
            }
        }
        if (q.headers.len > 0) {
            b.writeKey("headers");
            b.writeObject(q.headers.len);
            for (q.headers) |f| {
                b.writeKey(f.name);
                b.writeString(f.value);
            }
        }
    }

    /// Asks to be called again, with EventKind.fetched, when every fetch of this result is done. No instance is held until then: what the
    /// plugin has to remember is carried.
    pub fn awaitFetches(r: *Result) void {
        r.act(.await_fetches);
    }
};

// ---- Host operations ----

/// Who an API key belongs to.
pub const Identity = struct {
    account: []const u8,
    key: []const u8, // the key's id, which is no secret
    name: []const u8,
    scopes: Value, // a list of strings
};

/// What Host.hold reserved.
pub const Held = struct {
    hold: []const u8, // its id
    amount: []const u8, // a decimal in the ledger's currency
};

/// What a call cost.
pub const Receipt = struct {
    amount: []const u8, // a decimal in the ledger's currency
    balance: []const u8, // what is left and not held
};

/// What a plugin may ask while it runs. What a function returns is valid until the next call of one. One that needs a grant says which.
/// The operator bounds how many operations an event may make, 1,024 if nothing is written. Times are in nanoseconds; a ttl of 0 keeps
/// for good.
pub const Host = struct {
    in: Buffer,
    out: Buffer,

    /// Asks for an operation as ABI.md describes it, octet by octet: for one that this SDK has no function for yet. The result is the
    /// number of octets written to out, or a negative error.
    pub fn op(_: *Host, code: u32, in: []const u8, out: []u8) i64 {
        if (in_module) return imports.op(code, in.ptr, in.len, out.ptr, out.len);
        return if (backend) |b| b.op(code, in, out) else -6;
    }

    fn failed(n: i64) Error {
        return if (n >= -@as(i64, errors.len)) errors[@intCast(-1 - n)] else error.Unknown;
    }

    fn call(h: *Host, code: Code, in: []const u8) Error![]const u8 {
        h.out.clear();
        var n = h.op(@intFromEnum(code), in, h.out.data);
        if (n == -5 and h.out.data.len < max_answer and h.out.room(max_answer)) {
            n = h.op(@intFromEnum(code), in, h.out.data);
        }
        if (n < 0) return failed(n);
        if (n > h.out.data.len) return error.TooSmall;
        return h.out.data[0..@intCast(n)];
    }

    /// Does an operation with what was written to h.in.
    fn ask(h: *Host, code: Code) Error![]const u8 {
        return h.call(code, h.in.written() orelse return error.Invalid);
    }

    fn input(h: *Host) *Buffer {
        h.in.clear();
        return &h.in;
    }

    fn number(out: []const u8) Error!i64 {
        return if (out.len < 8) error.Invalid else readInt(i64, out);
    }

    /// The wall clock in nanoseconds since 1970. Event.time is nearer and mostly enough.
    pub fn time(h: *Host) Error!i64 {
        return number(try h.call(.time, ""));
    }

    /// Fills octets, at most 4,096, with some fit for keys.
    pub fn random(h: *Host, octets: []u8) Error!void {
        const n = h.op(@intFromEnum(Code.random), "", octets);
        if (n < 0) return failed(n);
    }

    /// Reads from the plugin's state on this node (grant state). error.NotFound when the key is not there or its time is over.
    pub fn get(h: *Host, key_: []const u8) Error![]const u8 {
        return h.call(.get, key_);
    }

    /// Writes to the plugin's state (grant state).
    pub fn put(h: *Host, key_: []const u8, value: []const u8, ttl: i64) Error!void {
        h.entry(key_, value, ttl);
        _ = try h.ask(.put);
    }

    fn entry(h: *Host, key_: []const u8, value: []const u8, ttl: i64) void {
        const in = h.input();
        in.addRaw(i64, ttl);
        in.writeKey(key_);
        in.add(value);
    }

    /// Writes value only when what is stored is old, null meaning nothing; else error.Conflict (grant state).
    pub fn cas(h: *Host, key_: []const u8, old: ?[]const u8, value: []const u8, ttl: i64) Error!void {
        const old_length = if (old) |o| o.len else 0;
        if (key_.len > max_input or old_length > max_input) return error.Invalid;
        const in = h.input();
        in.addRaw(i64, ttl);
        in.addRaw(u32, @intCast(key_.len));
        in.addRaw(u32, if (old == null) 0xffffffff else @intCast(old_length));
        in.add(key_);
        in.add(old orelse "");
        in.add(value);
        _ = try h.ask(.cas);
    }

    /// Removes a key from the plugin's state; removing what is not there is no error (grant state).
    pub fn delete(h: *Host, key_: []const u8) Error!void {
        _ = try h.call(.delete, key_);
    }

    /// Adds delta to a counter and returns its new value. A counter begins at 0; ttl counts from its first use (grant state).
    pub fn count(h: *Host, key_: []const u8, delta: i64, ttl: i64) Error!i64 {
        const in = h.input();
        in.addRaw(i64, delta);
        in.addRaw(i64, ttl);
        in.add(key_);
        return number(try h.ask(.count));
    }

    /// Finds who a presented API key belongs to (grant accounts). error.NotFound: no such key; error.Expired: revoked, expired, or its
    /// account is closed.
    pub fn key(h: *Host, presented: []const u8) Error!Identity {
        const v = Value.of(try h.call(.key, presented));
        return .{
            .account = v.member("account").text() orelse "",
            .key = v.member("key").text() orelse "",
            .name = v.member("name").text() orelse "",
            .scopes = v.member("scopes"),
        };
    }

    /// Reserves the most the call can cost (grant ledger): max is the attribute usage.max. error.Insufficient: the balance does not cover
    /// it; error.NotFound: no such account.
    pub fn hold(h: *Host, account: []const u8, model: []const u8, max: Value) Error!Held {
        const in = h.input();
        in.writeObject(3);
        in.writeKey("account");
        in.writeString(account);
        in.writeKey("model");
        in.writeString(model);
        in.writeKey("max");
        in.writeValue(max);
        const v = Value.of(try h.ask(.hold));
        return .{ .hold = v.member("hold").text() orelse "", .amount = v.member("amount").text() orelse "" };
    }

    /// Charges what a call used against its hold, once, and at most what was held (grant ledger). Usage is the attribute response.usage;
    /// tags an object of strings that is written on the ledger entry, or null (`.{}`). error.NotFound: no such hold.
    pub fn settle(h: *Host, held: []const u8, usage: Value, estimated: bool, tags: Value) Error!Receipt {
        const in = h.input();
        in.writeObject(4);
        in.writeKey("hold");
        in.writeString(held);
        in.writeKey("usage");
        in.writeValue(usage);
        in.writeKey("estimated");
        in.writeBool(estimated);
        in.writeKey("tags");
        in.writeValue(tags);
        const v = Value.of(try h.ask(.settle));
        return .{ .amount = v.member("amount").text() orelse "", .balance = v.member("balance").text() orelse "" };
    }

    /// Gives back what a hold reserved, for a call that was never served (grant ledger). error.NotFound: no such hold.
    pub fn release(h: *Host, held: []const u8) Error!void {
        _ = try h.call(.release, held);
    }

    /// Reads from the caller's account's part of the plugin's cache (grant cache). error.NotFound when the key is not there or its time is
    /// over; error.Unavailable when the caller has no account.
    pub fn cacheGet(h: *Host, key_: []const u8) Error![]const u8 {
        return h.call(.cache_get, key_);
    }

    /// Writes to the caller's account's part of the plugin's cache (grant cache), where the least used makes room. The ttl is more than 0.
    /// error.Unavailable when the caller has no account; error.Limit when the value is larger than the whole cache.
    pub fn cachePut(h: *Host, key_: []const u8, value: []const u8, ttl: i64) Error!void {
        h.entry(key_, value, ttl);
        _ = try h.ask(.cache_put);
    }
};

// ---- The module ----

/// Runs plugins of type T behind the ABI: it takes frames and gives results. A module has one, made by `plugin`; tests make their own.
/// T has a function `configure(*Stage) !T` and one `on(*T, *const Event, *Result) !void`.
pub fn Instance(comptime T: type) type {
    return struct {
        const Self = @This();

        frame: Buffer,
        host: Host,
        result: Result,
        stages: []T = &.{},

        /// An instance with memory of the caller's to begin with.
        pub fn init(frame: []u8, ops: []u8, in: []u8, out: []u8) Self {
            return .{
                .frame = .{ .data = frame, .max = max_frame },
                .result = .{ .ops = .{ .data = ops, .max = max_frame } },
                .host = .{ .in = .{ .data = in, .max = max_input }, .out = .{ .data = out, .max = max_answer } },
            };
        }

        /// Hands the first n octets of the frame buffer to T.configure; the answer is in i.result.
        pub fn configure(i: *Self, n: usize) void {
            i.result.start();
            const event = i.read(n) orelse return;
            const allocator = if (in_module) std.heap.wasm_allocator else std.heap.page_allocator;
            var stage: Stage = .{
                .number = event.stage,
                .phase = event.phase,
                .config = Value.of(event.body() orelse ""),
                .host = &i.host,
                .allocator = allocator,
                .result = &i.result,
            };
            if (i.make(&stage)) {
                i.finish();
            } else |err| {
                i.fail(err);
            }
        }

        fn make(i: *Self, stage: *Stage) !void {
            if (stage.number != i.stages.len) return error.StageOutOfOrder;
            const stages = try stage.allocator.alloc(T, i.stages.len + 1);
            @memcpy(stages[0..i.stages.len], i.stages);
            stages[i.stages.len] = try T.configure(stage);
            stage.allocator.free(i.stages);
            i.stages = stages;
        }

        /// Hands the first n octets of the frame buffer to T.on; the answer is in i.result.
        pub fn on(i: *Self, n: usize) void {
            i.result.start();
            const event = i.read(n) orelse return;
            if (event.stage >= i.stages.len) return i.fail(error.UnknownStage);
            if (i.stages[event.stage].on(&event, &i.result)) {
                i.finish();
            } else |err| {
                i.fail(err);
            }
        }

        /// Makes the frame buffer hold at least n octets, where it can; what was in it is lost.
        pub fn grow(i: *Self, n: usize) void {
            if (n > i.frame.data.len and n <= max_frame) _ = i.frame.room(n);
            i.frame.full = false;
        }

        fn read(i: *Self, n: usize) ?Event {
            if (n <= i.frame.data.len) {
                if (Event.read(i.frame.data[0..n], &i.host)) |event| return event;
            }
            i.result.refuse("malformed frame");
            return null;
        }

        fn fail(i: *Self, err: anyerror) void {
            @branchHint(.cold);
            i.result.refuse(@errorName(err));
        }

        fn finish(i: *Self) void {
            if (i.result.ops.full) {
                i.result.refuse("the result does not fit: it is longer than 16777215 octets, or than limits.memory allows");
            } else {
                i.result.close();
            }
        }
    };
}

/// Makes the module: exports what the gateway calls, for plugins of type T. It stands once, in a comptime block of the root file.
pub fn plugin(comptime T: type) void {
    if (!in_module) return; // tests make an Instance of their own
    const module = struct {
        var frame: [min_frame]u8 = undefined;
        var ops: [4 << 10]u8 = undefined;
        var in: [2 << 10]u8 = undefined;
        var out: [4 << 10]u8 = undefined;
        var instance: Instance(T) = .init(&frame, &ops, &in, &out);

        fn buffer() u64 {
            return @as(u64, @intFromPtr(instance.frame.data.ptr)) << 32 | instance.frame.data.len;
        }

        fn answer() u64 {
            const r = &instance.result;
            return @as(u64, @intFromEnum(r.action)) << 56 | @as(u64, r.ops.len) << 32 | @intFromPtr(r.ops.data.ptr);
        }

        fn abi() callconv(.c) u64 {
            return buffer();
        }

        fn grow(capacity: u32) callconv(.c) u64 {
            instance.grow(capacity);
            return buffer();
        }

        fn configure(length: u32) callconv(.c) u64 {
            instance.configure(length);
            return answer();
        }

        fn on(_: u32, length: u32) callconv(.c) u64 {
            instance.on(length);
            return answer();
        }
    };
    @export(&module.abi, .{ .name = "postern_abi_v1" });
    @export(&module.grow, .{ .name = "postern_grow" });
    @export(&module.configure, .{ .name = "postern_configure" });
    @export(&module.on, .{ .name = "postern_on" });
}
