//! The Zig SDK's conformance guest: it does what a script says and tells what it saw. What it has to do is written in
//! sdk/conformance/README.md; plugin.hcl is the manifest all guests share.

const std = @import("std");
const postern = @import("postern");

pub const panic = postern.panic;

comptime {
    postern.plugin(Guest);
}

const slot_do = 6; // argument do
const max_saw = 16000; // octets of what is told
const max_kept = 1024; // octets of what a stage keeps of its set-up
const max_words = 4096; // of a command

// Memory of the script that runs; there is one at a time.
var saw_memory: [max_saw + 4096]u8 = undefined;
var text_memory: [1 << 20]u8 = undefined;
var word_memory: [max_words][]const u8 = undefined;
var string_memory: [max_words][]const u8 = undefined;
var int_memory: [max_words]i64 = undefined;

var calls: u64 = 0;

/// A stage of the policy.
const Guest = struct {
    kept: []const u8,

    pub fn configure(stage: *postern.Stage) !Guest {
        var script: Script = .{ .host = stage.host, .result = stage.result, .stage = stage };
        try script.run(stage.config.member("setup").text() orelse "");
        const saw = script.saw.data[0..@min(script.saw.len, max_kept)];
        return .{ .kept = try stage.allocator.dupe(u8, saw) };
    }

    pub fn on(guest: *Guest, event: *const postern.Event, result: *postern.Result) !void {
        calls += 1;
        var script: Script = .{ .host = event.host, .result = result, .event = event, .guest = guest };
        try script.run(switch (event.kind) {
            .fetched => event.carried() orelse "",
            .request, .request_body, .response, .response_body, .account => event.value(slot_do).text() orelse "",
            else => return,
        });
        if (!script.ended and script.saw.len > 0) result.setAttribute("self.saw", script.saw.written().?);
    }
};

const Command = enum {
    event, time, exchange, calls, setup, see, has, header, headers, fields, value, member, at, encode, answer,
    set, add, remove, attribute, strings, ints, copy, replace, splice, drop, respond, content, carry, meter, done, fetch, @"await",
    @"error", trap, spin, repeat,
    log, now, random, get, put, cas, delete, count, key, hold, settle, release, cacheget, cacheput, op,

    /// How many words there are at least, the name included.
    fn least(c: Command) usize {
        return switch (c) {
            .event, .time, .exchange, .calls, .setup, .drop, .done, .@"await", .spin, .now => 1,
            .see, .has, .header, .headers, .fields, .value, .encode, .answer, .remove, .strings, .ints, .replace, .carry, .fetch => 2,
            .@"error", .trap, .random, .get, .delete, .key, .release, .cacheget => 2,
            .member, .at, .set, .add, .attribute, .copy, .content, .meter, .repeat, .log => 3,
            .splice, .respond, .put, .count, .hold, .cacheput, .op => 4,
            .cas, .settle => 5,
        };
    }

    /// What begins the token, if there is one: the name, or the name and a slot.
    fn token(c: Command) enum { none, name, slot } {
        return switch (c) {
            .event, .time, .exchange, .calls, .setup => .name,
            .see, .has, .header, .headers, .fields, .value, .member, .at, .encode, .answer => .slot,
            .now, .random, .get, .put, .cas, .delete, .count, .key, .hold, .settle, .release, .cacheget, .cacheput, .op => .name,
            else => .none,
        };
    }
};

/// Cuts off s what is before the separator: all of it, where there is none.
fn cut(s: *?[]const u8, separator: u8) []const u8 {
    const all = s.* orelse return "";
    for (all, 0..) |c, i| {
        if (c != separator) continue;
        s.* = all[i + 1 ..];
        return all[0..i];
    }
    s.* = null;
    return all;
}

fn eql(a: []const u8, b: []const u8) bool {
    return std.mem.eql(u8, a, b);
}

fn number(word: []const u8) i64 {
    return std.fmt.parseInt(i64, word, 10) catch 0;
}

fn size(word: []const u8) usize {
    return std.math.cast(usize, number(word)) orelse std.math.maxInt(usize);
}

const Script = struct {
    host: *postern.Host,
    result: *postern.Result,
    stage: ?*postern.Stage = null, // while one is configured
    event: ?*const postern.Event = null, // otherwise
    guest: ?*Guest = null,
    rest: ?[]const u8 = null, // the script, behind the command that runs
    ended: bool = false,
    saw: postern.Buffer = .fixed(&saw_memory),
    texts: postern.Buffer = .fixed(&text_memory), // the texts that words stand for

    fn run(s: *Script, script: []const u8) !void {
        if (script.len == 0) return;
        s.rest = script;
        while (s.rest != null and !s.ended) {
            var command: ?[]const u8 = cut(&s.rest, ';');
            if (s.rest) |rest| {
                if (rest.len > 0 and rest[0] == ' ') s.rest = rest[1..];
                if (s.rest.?.len == 0) s.rest = null;
            }
            var n: usize = 0;
            while (command != null and n < max_words) : (n += 1) word_memory[n] = cut(&command, ' ');
            s.texts.len = 0;
            try s.execute(word_memory[0..n]);
            if (!s.ended and (s.saw.full or s.saw.len > max_saw)) return s.result.fail("saw too much");
        }
    }

    fn execute(s: *Script, w: []const []const u8) (postern.Failure || postern.Error)!void {
        const command = std.meta.stringToEnum(Command, w[0]);
        if (command == null or w.len < command.?.least()) {
            var memory: [512]u8 = undefined;
            const why = std.fmt.bufPrint(&memory, "unknown command {s}", .{w[0]}) catch "unknown command";
            return s.result.fail(why);
        }
        const c = command.?;
        if (c.token() != .none) {
            if (s.saw.len > 0) s.say(" ");
            s.say(w[0]);
            if (c.token() == .slot) {
                s.say(".");
                s.say(w[1]);
            }
            s.say("=");
        }
        switch (c) {
            .event, .time, .exchange, .calls, .setup, .see, .has, .header => s.look(c, w),
            .headers, .fields, .value, .member, .at, .encode, .answer => s.look(c, w),
            .@"error" => return s.result.fail(s.text(w[1])),
            .trap => @panic(s.text(w[1])),
            .spin => spin(),
            .repeat => {
                const before = s.texts.len;
                for (0..size(w[1])) |_| {
                    s.texts.len = before;
                    try s.execute(w[2..]);
                }
            },
            .log => postern.log(@enumFromInt(number(w[1])), s.text(w[2])),
            .now, .random, .get, .put, .cas, .delete, .count, .key, .hold, .settle, .release, .cacheget, .cacheput, .op => {
                s.ask(c, w) catch |err| s.say(failure(err));
            },
            else => s.decide(c, w),
        }
    }

    fn spin() noreturn {
        var turns: u32 = 0;
        const seen: *volatile u32 = &turns;
        while (true) seen.* +%= 1;
    }

    // ---- Words ----

    /// What is in the slot body or carry.
    fn slot(s: *Script, name: []const u8) ?[]const u8 {
        const e = s.event orelse return null;
        return if (eql(name, "carry")) e.carried() else e.body();
    }

    /// n octets until the command has ended.
    fn room(s: *Script, n: usize) []u8 {
        const memory = s.texts.data[s.texts.len..][0..n];
        s.texts.len += n;
        return memory;
    }

    /// What a word stands for.
    fn text(s: *Script, word: []const u8) []const u8 {
        if (eql(word, "$body")) return s.slot("body") orelse "";
        if (eql(word, "$carry")) return s.slot("carry") orelse "";
        if (word.len > 0 and word[0] == '@') {
            const many = s.room(size(word[1..]));
            @memset(many, 'a');
            return many;
        }
        const to = s.room(word.len);
        var n: usize = 0;
        var i: usize = 0;
        while (i < word.len) : (n += 1) {
            if (word[i] == '%' and i + 2 < word.len) {
                to[n] = std.fmt.parseInt(u8, word[i + 1 .. i + 3], 16) catch 0;
                i += 3;
            } else {
                to[n] = word[i];
                i += 1;
            }
        }
        return to[0..n];
    }

    /// What is in a slot, as a value.
    fn value(s: *Script, name: []const u8) postern.Value {
        if (eql(name, "body")) {
            if (s.stage) |stage| return stage.config;
            return postern.Value.of(s.slot("body") orelse "");
        }
        return if (s.event) |e| e.value(size(name)) else .{};
    }

    // ---- What is told ----

    fn say(s: *Script, what: []const u8) void {
        s.saw.add(what);
    }

    fn sayInt(s: *Script, n: i64) void {
        s.saw.addInt(n);
    }

    fn sayHex(s: *Script, n: u64, digits: u6) void {
        var left = digits;
        while (left > 0) {
            left -= 1;
            s.say("0123456789abcdef"[@as(usize, @truncate(n >> (4 * left) & 15))..][0..1]);
        }
    }

    fn sayOctets(s: *Script, octets: ?[]const u8) void {
        const b = octets orelse return s.say("-");
        if (b.len > 256) {
            var sum: u32 = 0x811c9dc5;
            for (b) |c| sum = (sum ^ c) *% 0x01000193;
            s.say("#");
            s.sayInt(@intCast(b.len));
            s.say(":");
            s.sayHex(sum, 8);
            return;
        }
        s.say("\"");
        for (b) |c| {
            if (c > 0x20 and c < 0x7f and c != '"' and c != '%') {
                s.say(&.{c});
            } else {
                s.say(&.{ '%', "0123456789ABCDEF"[c >> 4], "0123456789ABCDEF"[c & 15] });
            }
        }
        s.say("\"");
    }

    fn sayValue(s: *Script, v: postern.Value) void {
        switch (v.kind()) {
            .null => s.say("null"),
            .bool => s.say(if (v.boolean()) "true" else "false"),
            .int => s.sayInt(v.int()),
            .float => {
                s.say("f");
                s.sayHex(@bitCast(v.float()), 16);
            },
            .string => s.sayOctets(v.text()),
            .list, .object => |kind| {
                s.say(if (kind == .list) "[" else "{");
                var it = v.members();
                var first = true;
                while (it.next()) |m| : (first = false) {
                    if (!first) s.say(",");
                    if (m.key) |key| {
                        s.sayOctets(key);
                        s.say(":");
                    }
                    s.sayValue(m.value);
                }
                s.say(if (kind == .list) "]" else "}");
            },
        }
    }

    // ---- Commands ----

    fn look(s: *Script, c: Command, w: []const []const u8) void {
        switch (c) {
            .event => s.lookEvent(),
            .time => s.sayInt(s.event.?.time()),
            .exchange => {
                var digits: [20]u8 = undefined;
                s.say(std.fmt.bufPrint(&digits, "{d}", .{s.event.?.exchange()}) catch unreachable);
            },
            .calls => s.sayInt(@intCast(calls)),
            .setup => s.sayOctets(s.guest.?.kept),
            .see => s.sayOctets(s.slot(w[1])),
            .has => {
                const fixed = eql(w[1], "body") or eql(w[1], "carry");
                const there = if (fixed) s.slot(w[1]) != null else s.event.?.has(size(w[1]));
                s.sayInt(@intFromBool(there));
            },
            .header => s.sayOctets(s.event.?.header(size(w[1]))),
            .headers => {
                if (!s.event.?.has(size(w[1]))) return s.say("-");
                var it = s.event.?.headers(size(w[1]));
                var before: []const u8 = "[";
                while (it.next()) |v| : (before = ",") {
                    s.say(before);
                    s.sayOctets(v);
                }
                s.say(if (before[0] == '[') "[]" else "]");
            },
            .fields => {
                if (!s.event.?.has(size(w[1]))) return s.say("-");
                var it = s.event.?.fields(size(w[1]));
                var before: []const u8 = "{";
                while (it.next()) |f| : (before = ",") {
                    s.say(before);
                    s.sayOctets(f.name);
                    s.say(":");
                    s.sayOctets(f.value);
                }
                s.say(if (before[0] == '{') "{}" else "}");
            },
            .value => s.sayValue(s.value(w[1])),
            .member => s.sayValue(s.value(w[1]).member(s.text(w[2]))),
            .at => s.sayValue(s.value(w[1]).at(size(w[2]))),
            .encode => {
                var memory: [512]u8 = undefined;
                var b: postern.Buffer = .fixed(&memory);
                encode(&b, s.value(w[1]));
                for (b.written() orelse "") |octet| s.sayHex(octet, 2);
            },
            .answer => {
                const a = s.event.?.answer(s.text(w[1])) orelse return s.say("-");
                s.sayInt(a.status);
                s.say(if (a.cached) ",1," else ",0,");
                s.sayOctets(a.failure);
                s.say(",");
                s.sayOctets(a.body);
                if (w.len > 2) {
                    s.say(",");
                    s.sayOctets(a.header(s.text(w[2])));
                }
            },
            else => unreachable,
        }
    }

    fn lookEvent(s: *Script) void {
        if (s.stage) |stage| {
            s.say("0,");
            s.sayInt(@intFromEnum(stage.phase));
            s.say(",");
            s.sayInt(stage.number);
            s.say(",E");
            return;
        }
        const e = s.event.?;
        s.sayInt(@intFromEnum(e.kind));
        s.say(",");
        s.sayInt(@intFromEnum(e.phase));
        s.say(",");
        s.sayInt(e.stage);
        s.say(",");
        if (e.end()) s.say("E");
        if (e.stream()) s.say("S");
        if (e.truncated()) s.say("T");
        if (e.gone()) s.say("G");
    }

    fn decide(s: *Script, c: Command, w: []const []const u8) void {
        const r = s.result;
        switch (c) {
            .set => r.setHeader(s.text(w[1]), s.text(w[2])),
            .add => r.addHeader(s.text(w[1]), s.text(w[2])),
            .remove => r.removeHeader(s.text(w[1])),
            .attribute => r.setAttribute(s.text(w[1]), s.text(w[2])),
            .strings => {
                for (w[2..], 0..) |word, i| string_memory[i] = s.text(word);
                r.setAttributeStrings(s.text(w[1]), string_memory[0 .. w.len - 2]);
            },
            .ints => {
                for (w[2..], 0..) |word, i| int_memory[i] = number(word);
                r.setAttributeInts(s.text(w[1]), int_memory[0 .. w.len - 2]);
            },
            .copy => r.setAttributeValue(s.text(w[1]), s.value(w[2])),
            .replace => r.replaceBody(s.text(w[1])),
            .splice => r.splice(@intCast(number(w[1])), @intCast(number(w[2])), s.text(w[3])),
            .drop => r.dropBody(),
            .respond => r.respond(@intCast(number(w[1])), s.text(w[2]), s.text(w[3])),
            .content => r.respondBody(s.text(w[1]), s.text(w[2])),
            .carry => r.carry(s.text(w[1])),
            .meter => r.meter(s.text(w[1]), number(w[2])),
            .done => r.done(),
            .fetch => s.fetch(w),
            .@"await" => {
                r.carry(s.rest orelse "");
                r.awaitFetches();
                s.ended = true;
            },
            else => unreachable,
        }
    }

    fn fetch(s: *Script, w: []const []const u8) void {
        var fields: [80]postern.Field = undefined;
        var count: usize = 0;
        var q: postern.Fetch = .{};
        next: for (w[2..]) |member| {
            var word: ?[]const u8 = member;
            var key: ?[]const u8 = cut(&word, '=');
            inline for (.{ "url", "upstream", "path", "method", "body" }) |name| {
                if (eql(key.?, name)) {
                    @field(q, name) = s.text(word orelse "");
                    continue :next;
                }
            }
            inline for (.{ "timeout", "cache", "max" }) |name| {
                if (eql(key.?, name)) {
                    @field(q, name) = number(word orelse "");
                    continue :next;
                }
            }
            _ = cut(&key, ':');
            fields[count] = .{ .name = key orelse "", .value = s.text(word orelse "") };
            count += 1;
        }
        q.headers = fields[0..count];
        s.result.fetch(s.text(w[1]), q);
    }

    fn ask(s: *Script, c: Command, w: []const []const u8) postern.Error!void {
        const h = s.host;
        switch (c) {
            .now => s.sayInt(try h.time()),
            .random => {
                const octets = s.room(size(w[1]));
                try h.random(octets);
                if (octets.len > 64) return s.sayInt(@intCast(octets.len));
                for (octets) |octet| s.sayHex(octet, 2);
            },
            .get => s.sayOctets(try h.get(s.text(w[1]))),
            .put => {
                try h.put(s.text(w[1]), s.text(w[2]), number(w[3]));
                s.say("ok");
            },
            .cas => {
                try h.cas(s.text(w[1]), if (eql(w[2], "-")) null else s.text(w[2]), s.text(w[3]), number(w[4]));
                s.say("ok");
            },
            .delete => {
                try h.delete(s.text(w[1]));
                s.say("ok");
            },
            .count => s.sayInt(try h.count(s.text(w[1]), number(w[2]), number(w[3]))),
            .key => {
                const who = try h.key(s.text(w[1]));
                s.sayOctets(who.account);
                s.say(",");
                s.sayOctets(who.key);
                s.say(",");
                s.sayOctets(who.name);
                s.say(",");
                s.sayValue(who.scopes);
            },
            .hold => {
                const held = try h.hold(s.text(w[1]), s.text(w[2]), s.value(w[3]));
                s.sayOctets(held.hold);
                s.say(",");
                s.sayOctets(held.amount);
            },
            .settle => {
                const tags: postern.Value = if (eql(w[4], "-")) .{} else s.value(w[4]);
                const receipt = try h.settle(s.text(w[1]), s.value(w[2]), eql(w[3], "1"), tags);
                s.sayOctets(receipt.amount);
                s.say(",");
                s.sayOctets(receipt.balance);
            },
            .release => {
                try h.release(s.text(w[1]));
                s.say("ok");
            },
            .cacheget => s.sayOctets(try h.cacheGet(s.text(w[1]))),
            .cacheput => {
                try h.cachePut(s.text(w[1]), s.text(w[2]), number(w[3]));
                s.say("ok");
            },
            .op => s.sayInt(h.op(@intCast(number(w[1])), s.text(w[3]), s.room(size(w[2])))),
            else => unreachable,
        }
    }
};

/// Builds a value anew.
fn encode(b: *postern.Buffer, v: postern.Value) void {
    switch (v.kind()) {
        .null => b.writeNull(),
        .bool => b.writeBool(v.boolean()),
        .int => b.writeInt(v.int()),
        .float => b.writeFloat(v.float()),
        .string => b.writeString(v.text().?),
        .list, .object => |kind| {
            if (kind == .list) b.writeList(v.len()) else b.writeObject(v.len());
            var it = v.members();
            while (it.next()) |m| {
                if (m.key) |key| b.writeKey(key);
                encode(b, m.value);
            }
        },
    }
}

fn failure(err: postern.Error) []const u8 {
    return switch (err) {
        error.NotFound => "NOT_FOUND",
        error.Conflict => "CONFLICT",
        error.Denied => "DENIED",
        error.Invalid => "INVALID",
        error.TooSmall => "TOO_SMALL",
        error.Unavailable => "UNAVAILABLE",
        error.Insufficient => "INSUFFICIENT",
        error.Expired => "EXPIRED",
        error.Limit => "LIMIT",
        error.Unknown => "UNKNOWN",
    };
}
