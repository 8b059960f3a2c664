//! Unit tests of postern.zig, for the machine they are compiled on: zig test postern_test.zig

const std = @import("std");
const postern = @import("postern.zig");
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const expectEqualStrings = std.testing.expectEqualStrings;

/// A plugin that does what a test says.
const Script = struct {
    number: u32,

    var configuring: ?*const fn (stage: *postern.Stage) anyerror!void = null;
    var happening: *const fn (script: *Script, event: *const postern.Event, result: *postern.Result) anyerror!void = undefined;

    pub fn configure(stage: *postern.Stage) !Script {
        if (configuring) |f| try f(stage);
        return .{ .number = stage.number };
    }

    pub fn on(script: *Script, event: *const postern.Event, result: *postern.Result) !void {
        return happening(script, event, result);
    }
};

const Instance = postern.Instance(Script);

/// An instance with one stage, in memory as small as a module begins with.
const Fixture = struct {
    frame: [postern.min_frame]u8 = undefined,
    ops: [256]u8 = undefined,
    in: [64]u8 = undefined,
    out: [64]u8 = undefined,
    instance: Instance = undefined,

    fn init(f: *Fixture) void {
        f.instance = .init(&f.frame, &f.ops, &f.in, &f.out);
        Script.configuring = null;
        f.send(0, 0, &.{});
    }

    /// Writes an event with the slots given, null being absent, and hands it to the plugin.
    fn send(f: *Fixture, kind: u16, stage: u32, slots: []const ?[]const u8) void {
        const b = f.instance.frame.data;
        var n = 32 + 8 * slots.len;
        @memset(b[0..n], 0);
        std.mem.writeInt(u16, b[4..6], kind, .little);
        b[6] = 4;
        b[7] = 9;
        std.mem.writeInt(u32, b[8..12], stage, .little);
        std.mem.writeInt(u32, b[12..16], @intCast(slots.len), .little);
        std.mem.writeInt(i64, b[16..24], 99, .little);
        std.mem.writeInt(u64, b[24..32], std.math.maxInt(u64), .little);
        for (slots, 0..) |slot, i| {
            const octets = slot orelse continue;
            std.mem.writeInt(u32, b[32 + 8 * i ..][0..4], @intCast(n), .little);
            std.mem.writeInt(u32, b[36 + 8 * i ..][0..4], @intCast(octets.len), .little);
            @memcpy(b[n..][0..octets.len], octets);
            n += octets.len;
        }
        std.mem.writeInt(u32, b[0..4], @intCast(n), .little);
        if (kind == 0) f.instance.configure(n) else f.instance.on(n);
    }

    /// The result of one event.
    fn run(f: *Fixture, comptime on: fn (event: *const postern.Event, result: *postern.Result) anyerror!void) !void {
        Script.happening = struct {
            fn happen(_: *Script, event: *const postern.Event, result: *postern.Result) anyerror!void {
                return on(event, result);
            }
        }.happen;
        f.send(1, 0, &.{});
    }

    fn wants(f: *Fixture, action: postern.Action, ops: []const u8) !void {
        const r = &f.instance.result;
        try expectEqual(action, r.action);
        try std.testing.expectEqualSlices(u8, ops, r.ops.data[0..r.ops.len]);
    }

    /// The text of a failure.
    fn failure(f: *Fixture) ![]const u8 {
        const r = &f.instance.result;
        try expectEqual(postern.Action.failed, r.action);
        try expectEqualStrings("\x08\x00\x0c\x00", r.ops.data[0..4]);
        return r.ops.data[8 + 12 + 2 .. r.ops.len];
    }
};

var fixture: Fixture = .{};

fn greet(_: *const postern.Event, r: *postern.Result) !void {
    r.setHeader("x-greeting", "Welcome");
    r.append(", ");
    r.append("Ada");
}

fn everyOperation(_: *const postern.Event, r: *postern.Result) !void {
    var memory: [2]u8 = undefined;
    var b: postern.Buffer = .fixed(&memory);
    b.writeBool(true);
    r.append("dropped: nothing was written yet");
    r.addHeader("a", "b");
    r.removeHeader("c");
    r.setAttribute("s", "x");
    r.appendInt(std.math.minInt(i64));
    r.setAttributeInts("i", &.{ 1, -2 });
    r.setAttributeStrings("l", &.{ "a", "" });
    r.setAttributeValue("v", .of(b.written().?));
    r.setAttributeValue("n", .{});
    r.replaceBody("new");
    r.splice(1, 2, "put");
    r.dropBody();
    r.respond(404, "no", "why");
    r.respondBody("t", "body");
    r.carry("c\x00d");
    r.meter("m", 258);
    r.done();
}

fn fetching(_: *const postern.Event, r: *postern.Result) !void {
    r.fetch("f", .{ .upstream = "u", .cache = 1, .headers = &.{.{ .name = "h", .value = "v" }} });
    r.awaitFetches();
}

test "results" {
    fixture.init();
    try fixture.wants(.proceed, "");
    try fixture.run(greet);
    try fixture.wants(.proceed, "\x01\x00\x0a\x00\x0c\x00\x00\x00x-greetingWelcome, Ada");
    try fixture.run(everyOperation);
    try fixture.wants(.done, "\x02\x00\x01\x00\x01\x00\x00\x00ab" ++
        "\x03\x00\x01\x00\x00\x00\x00\x00c" ++
        "\x04\x00\x01\x00\x1a\x00\x00\x00s\x04\x15\x00\x00\x00x-9223372036854775808" ++
        "\x04\x00\x01\x00\x17\x00\x00\x00i\x05\x02\x00\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00\x00\x02\xfe\xff\xff\xff\xff\xff\xff\xff" ++
        "\x04\x00\x01\x00\x10\x00\x00\x00l\x05\x02\x00\x00\x00\x04\x01\x00\x00\x00a\x04\x00\x00\x00\x00" ++
        "\x04\x00\x01\x00\x02\x00\x00\x00v\x01\x01" ++
        "\x04\x00\x01\x00\x01\x00\x00\x00n\x00" ++
        "\x05\x00\x00\x00\x03\x00\x00\x00new" ++
        "\x06\x00\x00\x00\x0b\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00put" ++
        "\x07\x00\x00\x00\x00\x00\x00\x00" ++
        "\x08\x00\x02\x00\x05\x00\x00\x00no\x94\x01why" ++
        "\x09\x00\x01\x00\x04\x00\x00\x00tbody" ++
        "\x0a\x00\x00\x00\x03\x00\x00\x00c\x00d" ++
        "\x0c\x00\x01\x00\x08\x00\x00\x00m\x02\x01\x00\x00\x00\x00\x00\x00");
    try fixture.run(fetching);
    try fixture.wants(.await_fetches, "\x0b\x00\x01\x00\x44\x00\x00\x00f\x06\x03\x00\x00\x00" ++
        "\x08\x00\x00\x00upstream\x04\x01\x00\x00\x00u" ++
        "\x05\x00\x00\x00cache\x02\x01\x00\x00\x00\x00\x00\x00\x00" ++
        "\x07\x00\x00\x00headers\x06\x01\x00\x00\x00\x01\x00\x00\x00h\x04\x01\x00\x00\x00v");
}

const many: [1 << 16]u8 = @splat('x');

fn failing(_: *const postern.Event, r: *postern.Result) !void {
    r.setHeader("lost", "lost");
    const err = r.fail(many[0..3000]);
    r.setHeader("late", "late");
    r.append("late");
    r.done();
    r.respond(400, "late", "late");
    return err;
}

fn failingWithout(_: *const postern.Event, r: *postern.Result) !void {
    r.setHeader("lost", "lost");
    return error.NoSuchColour;
}

/// The plugin looks away from what fail returned; it has failed nonetheless.
fn forgetful(_: *const postern.Event, r: *postern.Result) !void {
    r.fail("first") catch {};
    r.fail("second") catch {};
}

fn longName(_: *const postern.Event, r: *postern.Result) !void {
    r.setHeader(&many, "v");
    r.append("more");
}

fn tooMuch(_: *const postern.Event, r: *postern.Result) !void {
    for (0..257) |_| r.carry(&many);
}

fn theMost(_: *const postern.Event, r: *postern.Result) !void {
    r.carry("");
    var left: usize = postern.max_frame - 8;
    while (left > 0) {
        const n = @min(left, many.len);
        r.append(many[0..n]);
        left -= n;
    }
}

test "failures" {
    fixture.init();
    try fixture.run(failing);
    try expectEqualStrings(many[0..1024], try fixture.failure());
    try fixture.run(failingWithout);
    try expectEqualStrings("NoSuchColour", try fixture.failure());
    try fixture.run(forgetful);
    try expectEqualStrings("first", try fixture.failure());
    try fixture.run(longName);
    try expectEqualStrings("a name in the result is longer than 65535 octets", try fixture.failure());
    try fixture.run(tooMuch);
    try expect(std.mem.startsWith(u8, try fixture.failure(), "the result does not fit"));
    try fixture.run(theMost);
    try expectEqual(postern.Action.proceed, fixture.instance.result.action);
    try expectEqual(@as(usize, postern.max_frame), fixture.instance.result.ops.len);
    try expectEqual(@as(u32, postern.max_frame - 8), std.mem.readInt(u32, fixture.instance.result.ops.data[4..8], .little));
    try fixture.run(greet);
    try fixture.wants(.proceed, "\x01\x00\x0a\x00\x0c\x00\x00\x00x-greetingWelcome, Ada");
}

fn look(_: *Script, e: *const postern.Event, _: *postern.Result) !void {
    try expectEqual(postern.EventKind.response, e.kind);
    try expectEqual(postern.Phase.request, e.phase);
    try expectEqual(@as(i64, 99), e.time());
    try expectEqual(@as(u64, std.math.maxInt(u64)), e.exchange());
    try expect(e.end() and e.gone() and !e.stream() and !e.truncated());
    try expectEqualStrings("c", e.carried().?);
    try expectEqualStrings("", e.body().?);
    try expectEqualStrings("a", e.header(0).?);
    var values = e.headers(0);
    for ([_][]const u8{ "a", "", "b" }) |v| try expectEqualStrings(v, values.next().?);
    try expect(values.next() == null and values.next() == null);
    var fields = e.fields(1);
    const field = fields.next().?;
    try expectEqualStrings("x", field.name);
    try expectEqualStrings("1", field.value);
    try expect(fields.next() == null);
    try expect(!e.has(2) and e.header(2) == null and e.value(2).kind() == .null);
    try expect(e.has(3));
    try expectEqualStrings("v", e.value(3).text().?);
    try expect(!e.has(4) and !e.has(std.math.maxInt(usize)));
    try expect(e.answer("x") == null);
}

test "frames" {
    fixture.init();
    Script.happening = look;
    fixture.send(3, 0, &.{ "c", "", "\x01\x00\x00\x00a\x00\x00\x00\x00\x01\x00\x00\x00b", "\x01\x00\x00\x00x\x01\x00\x00\x001\x01\x00\x00\x00y", null, "\x04\x01\x00\x00\x00v" });
    try fixture.wants(.proceed, "");
    // A frame that is not whole is answered, not believed; nor is a stage that was never configured.
    for ([_]usize{ 0, 31, 79, std.math.maxInt(u32) }) |n| {
        fixture.instance.on(n);
        try expectEqualStrings("malformed frame", try fixture.failure());
        fixture.instance.configure(n);
        try expectEqualStrings("malformed frame", try fixture.failure());
    }
    fixture.send(1, 1, &.{});
    try expectEqualStrings("UnknownStage", try fixture.failure());
    fixture.instance.grow(200_000);
    try expect(fixture.instance.frame.data.len >= 200_000 and fixture.instance.frame.data.len <= 262_144);
    const before = fixture.instance.frame.data.len;
    fixture.instance.grow(postern.max_frame + 1);
    try expectEqual(before, fixture.instance.frame.data.len);
    fixture.instance.grow(postern.max_frame);
    try expect(fixture.instance.frame.data.len >= postern.max_frame);
    fixture.send(3, 0, &.{ "c", "", "\x01\x00\x00\x00a\x00\x00\x00\x00\x01\x00\x00\x00b", "\x01\x00\x00\x00x\x01\x00\x00\x001", null, "\x04\x01\x00\x00\x00v" });
    try fixture.wants(.proceed, "");
}

test "values" {
    var memory: [300]u8 = undefined;
    var b: postern.Buffer = .fixed(&memory);
    b.writeObject(6);
    b.writeKey("n");
    b.writeNull();
    b.writeKey("i");
    b.writeInt(std.math.minInt(i64));
    b.writeKey("f");
    b.writeFloat(-2.75);
    b.writeKey("b");
    b.writeBool(true);
    b.writeKey("s");
    b.writeString("text");
    b.writeKey("l");
    b.writeList(2);
    b.writeInt(1);
    b.writeValue(.{});
    const raw = b.written().?;
    const v: postern.Value = .of(raw);
    try expectEqual(raw.len, v.raw.len);
    try expectEqual(@as(u32, 6), v.len());
    try expectEqual(@as(i64, std.math.minInt(i64)), v.member("i").int());
    try expectEqual(@as(f64, -2.75), v.member("f").float());
    try expectEqual(@as(i64, -2), v.member("f").int());
    try expect(v.member("b").boolean());
    try expectEqualStrings("text", v.member("s").text().?);
    try expectEqual(@as(i64, 1), v.member("l").at(0).int());
    for ([_]postern.Value{ .{}, v.member("n"), v.member("none"), v.at(0), v.member("l").at(1), v.member("l").at(2), v.member("l").member("i"), v.member("s").member("i") }) |nothing| {
        try expect(nothing.kind() == .null and !nothing.boolean() and nothing.int() == 0 and nothing.float() == 0 and nothing.text() == null and nothing.len() == 0);
    }
    for (0..raw.len) |n| try expectEqual(postern.Kind.null, postern.Value.of(raw[0..n]).kind());
    // Numbers that no int holds become the nearest one.
    const floats = [_]f64{ 1e300, -1e300, 0x1p63, -0x1p63, std.math.nan(f64), 1.5 };
    const ints = [_]i64{ std.math.maxInt(i64), std.math.minInt(i64), std.math.maxInt(i64), std.math.minInt(i64), 0, 1 };
    for (floats, ints) |f, i| {
        var number: postern.Buffer = .fixed(&memory);
        number.writeFloat(f);
        try expectEqual(i, postern.Value.of(number.written().?).int());
    }
    // Deeper than 32 is malformed.
    for (32..34) |depth| {
        var deep: postern.Buffer = .fixed(&memory);
        for (0..depth) |_| deep.writeList(1);
        deep.writeNull();
        try expectEqual(depth == 32, postern.Value.of(deep.written().?).kind() == .list);
    }
    // A buffer that is full stays what it was, and says so.
    var small: postern.Buffer = .fixed(memory[0..4]);
    for ([_][]const u8{ "abc", "de", "f" }) |octets| small.add(octets);
    try expect(small.full and small.len == 3 and small.written() == null);
}

fn checkStage(stage: *postern.Stage) !void {
    try expectEqual(postern.Phase.request, stage.phase);
    try expectEqual(postern.Kind.null, stage.config.kind());
}

fn refuseStage(stage: *postern.Stage) !void {
    return stage.fail(stage.config.member("why").text().?);
}

fn checkNumber(script: *Script, event: *const postern.Event, _: *postern.Result) !void {
    try expectEqual(event.stage, script.number);
}

test "stages" {
    fixture.init();
    Script.configuring = checkStage;
    for (1..40) |i| {
        fixture.send(0, @intCast(i), &.{});
        try fixture.wants(.proceed, "");
    }
    Script.happening = checkNumber;
    for (0..40) |i| {
        fixture.send(1, @intCast(i), &.{});
        try fixture.wants(.proceed, "");
    }
    Script.configuring = refuseStage;
    fixture.send(0, 40, &.{ null, "\x06\x01\x00\x00\x00\x03\x00\x00\x00why\x04\x05\x00\x00\x00wrong" });
    try expectEqualStrings("wrong", try fixture.failure());
    Script.configuring = null;
    fixture.send(0, 41, &.{});
    try expectEqualStrings("StageOutOfOrder", try fixture.failure());
}

/// A host that tells what it was asked.
const Asked = struct {
    var code: u32 = 0;
    var times: usize = 0;
    var in: [postern.max_input]u8 = undefined;
    var in_length: usize = 0;
    var answer: []const u8 = "";
    var failing_with: i64 = 0;
    var logged: [64]u8 = undefined;
    var logged_length: usize = 0;

    fn op(c: u32, octets: []const u8, out: []u8) i64 {
        code = c;
        times += 1;
        @memcpy(in[0..octets.len], octets);
        in_length = octets.len;
        if (failing_with < 0) return failing_with;
        if (answer.len > out.len) return -5;
        @memcpy(out[0..answer.len], answer);
        return @intCast(answer.len);
    }

    fn log(level: postern.Level, message: []const u8) void {
        const line = std.fmt.bufPrint(&logged, "{d} {s}", .{ @intFromEnum(level), message }) catch &logged;
        logged_length = line.len;
    }

    fn with(c: u32, octets: []const u8) !void {
        try expectEqual(c, code);
        try std.testing.expectEqualSlices(u8, octets, in[0..in_length]);
    }
};

test "host operations" {
    fixture.init();
    postern.backend = .{ .log = Asked.log, .op = Asked.op };
    defer postern.backend = null;
    const h = &fixture.instance.host;
    postern.log(.warn, "careful");
    try expectEqualStrings("2 careful", Asked.logged[0..Asked.logged_length]);
    postern.logFn(.info, .here, "{d} of {s}", .{ 1, "two" });
    try expectEqualStrings("1 here: 1 of two", Asked.logged[0..Asked.logged_length]);

    Asked.answer = "\x02\x01\x00\x00\x00\x00\x00\x00";
    try expectEqual(@as(i64, 258), try h.time());
    try Asked.with(1, "");
    try expectEqual(@as(i64, 258), try h.count("key", -1, 2));
    try Asked.with(7, "\xff\xff\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x00\x00\x00key");
    Asked.answer = "short";
    try std.testing.expectError(error.Invalid, h.count("key", 1, 0));
    Asked.answer = "";
    try h.put("k", "v\x00", 3);
    try Asked.with(4, "\x03\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00kv\x00");
    try h.cas("k", "", "v", 0);
    try Asked.with(5, "\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00kv");
    try h.cas("k", null, "v", 0);
    try Asked.with(5, "\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\xff\xff\xff\xffkv");
    try h.delete("k");
    try Asked.with(6, "k");
    try h.release("h");
    try Asked.with(11, "h");
    try h.cachePut("k", "v", 3);
    try Asked.with(13, "\x03\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00kv");
    var octets: [8]u8 = undefined;
    try h.random(&octets);
    try Asked.with(2, "");

    // Answers: small ones at once, large ones in a larger buffer, which is kept.
    Asked.times = 0;
    Asked.answer = "value";
    try expectEqualStrings("value", try h.get("k"));
    try expectEqual(@as(usize, 1), Asked.times);
    Asked.answer = &many;
    try expectEqual(many.len, (try h.cacheGet("k")).len);
    try Asked.with(12, "k");
    try expectEqual(@as(usize, 3), Asked.times);
    try expectEqual(many.len, (try h.get("k")).len);
    try expectEqual(@as(usize, 4), Asked.times);
    const larger: [many.len + 1]u8 = @splat('y');
    Asked.answer = &larger;
    try std.testing.expectError(error.TooSmall, h.get("k"));
    const names = [_]postern.Error{
        error.NotFound,     error.Conflict, error.Denied, error.Invalid, error.TooSmall, error.Unavailable,
        error.Insufficient, error.Expired,  error.Limit,  error.Unknown, error.Unknown,
    };
    for (names, 1..) |err, n| {
        Asked.failing_with = -@as(i64, @intCast(n));
        try std.testing.expectError(err, h.get("k"));
        try std.testing.expectError(err, h.random(&octets));
    }
    Asked.failing_with = std.math.minInt(i64);
    try std.testing.expectError(error.Unknown, h.get("k"));
    Asked.failing_with = 0;

    Asked.answer = "\x06\x04\x00\x00\x00\x07\x00\x00\x00account\x04\x01\x00\x00\x00a\x03\x00\x00\x00key\x04\x01\x00\x00\x00k\x04\x00\x00\x00name\x04\x00\x00\x00\x00\x06\x00\x00\x00scopes\x05\x01\x00\x00\x00\x04\x01\x00\x00\x00s";
    const who = try h.key("secret");
    try Asked.with(8, "secret");
    try expectEqualStrings("a", who.account);
    try expectEqualStrings("k", who.key);
    try expectEqualStrings("", who.name);
    try expectEqualStrings("s", who.scopes.at(0).text().?);
    Asked.answer = "\x06\x02\x00\x00\x00\x06\x00\x00\x00amount\x04\x01\x00\x00\x001\x07\x00\x00\x00balance\x04\x01\x00\x00\x002";
    const receipt = try h.settle("h", .{}, true, .{});
    try Asked.with(10, "\x06\x04\x00\x00\x00\x04\x00\x00\x00hold\x04\x01\x00\x00\x00h\x05\x00\x00\x00usage\x00\x09\x00\x00\x00estimated\x01\x01\x04\x00\x00\x00tags\x00");
    try expectEqualStrings("1", receipt.amount);
    try expectEqualStrings("2", receipt.balance);
    Asked.answer = "\x06\x01\x00\x00\x00\x04\x00\x00\x00hold\x04\x02\x00\x00\x00h1";
    const held = try h.hold("a", "m", .{});
    try Asked.with(9, "\x06\x03\x00\x00\x00\x07\x00\x00\x00account\x04\x01\x00\x00\x00a\x05\x00\x00\x00model\x04\x01\x00\x00\x00m\x03\x00\x00\x00max\x00");
    try expectEqualStrings("h1", held.hold);

    // An input larger than any the host takes is not sent.
    const large: [200_000]u8 = @splat(0);
    Asked.times = 0;
    try std.testing.expectError(error.Invalid, h.put("k", &large, 0));
    try std.testing.expectError(error.Invalid, h.put(&large, "v", 0));
    try std.testing.expectError(error.Invalid, h.cas("k", &large, "v", 0));
    try expectEqual(@as(usize, 0), Asked.times);
    Asked.answer = "";
    try h.put("k", large[0..190_000], 0);
    try expectEqual(@as(usize, 190_013), Asked.in_length);
    try expectEqual(@as(i64, 0), h.op(99, "in", &octets));
    try Asked.with(99, "in");
}

const fetched = "\x06\x02\x00\x00\x00\x01\x00\x00\x00a\x06\x05\x00\x00\x00\x06\x00\x00\x00status\x02\xcc\x00\x00\x00\x00\x00\x00\x00" ++
    "\x05\x00\x00\x00error\x04\x00\x00\x00\x00\x06\x00\x00\x00cached\x01\x01" ++
    "\x07\x00\x00\x00headers\x06\x01\x00\x00\x00\x03\x00\x00\x00x-a\x04\x01\x00\x00\x00v\x04\x00\x00\x00body\x04\x02\x00\x00\x00ok" ++
    "\x01\x00\x00\x00b\x06\x02\x00\x00\x00\x06\x00\x00\x00status\x02\x00\x00\x00\x00\x00\x00\x00\x01\x05\x00\x00\x00error\x04\x07\x00\x00\x00timeout";

fn readAnswers(_: *Script, e: *const postern.Event, _: *postern.Result) !void {
    const a = e.answer("a").?;
    try expect(a.ok() and a.status == 204 and a.cached);
    try expectEqualStrings("ok", a.body);
    try expectEqualStrings("v", a.header("x-a").?);
    try expect(a.header("x-b") == null);
    const b = e.answer("b").?;
    try expect(!b.ok() and b.status == 0 and !b.cached);
    try expectEqualStrings("timeout", b.failure);
    try expect(e.answer("c") == null and e.answers().len() == 2);
}

test "answers" {
    fixture.init();
    Script.happening = readAnswers;
    fixture.send(5, 0, &.{ null, fetched });
    try fixture.wants(.proceed, "");
}

fn length(octets: ?[]const u8) usize {
    return if (octets) |o| o.len else 0;
}

/// Reads everything there is, so that a check of the compiler's ends the test where something is read that is not there.
fn walk(e: *const postern.Event) usize {
    var seen = length(e.carried()) + length(e.body());
    for (0..8) |slot| {
        seen += @intFromBool(e.has(slot)) + length(e.header(slot));
        var values = e.headers(slot);
        while (values.next()) |v| seen += v.len;
        var fields = e.fields(slot);
        while (fields.next()) |f| seen += f.name.len + f.value.len;
        seen += walkValue(e.value(slot), 0);
    }
    if (e.answer("a")) |a| seen += a.body.len + length(a.header("x-a"));
    return seen;
}

fn walkValue(v: postern.Value, depth: usize) usize {
    var seen = v.raw.len + length(v.text()) + @intFromBool(v.boolean()) + @as(usize, @intFromBool(v.int() > 0)) + v.member("k").raw.len + v.at(1).raw.len;
    if (depth > 32) @panic("a value nests deeper than 32");
    var members = v.members();
    var n: usize = 0;
    while (members.next()) |m| : (n += 1) seen += length(m.key) + walkValue(m.value, depth + 1);
    if (n != v.len()) @panic("a value has not as many members as it says");
    return seen;
}

fn walking(_: *Script, e: *const postern.Event, _: *postern.Result) !void {
    _ = walk(e);
}

/// The heads of lists of one member, each in the one before it.
fn lists(comptime depth: usize) []const u8 {
    var heads: []const u8 = "";
    for (0..depth) |_| heads = heads ++ "\x05\x01\x00\x00\x00";
    return heads;
}

test "hostile frames" {
    fixture.init();
    Script.happening = walking;
    const deep = comptime lists(32) ++ "\x00";
    const seeds = [_][]const ?[]const u8{
        &.{ "c", "", "\x01\x00\x00\x00a\x00\x00\x00\x00", "\x01\x00\x00\x00x\x01\x00\x00\x001", null, deep, "\x06\x01\x00\x00\x00\x01\x00\x00\x00k\x03\x00\x00\x00\x00\x00\x00\xf0\x7f" },
        &.{ null, fetched, "\x04\xff\xff\xff\xff", "\x06\x01\x00\x00\x00\xff\xff\xff\xff", "\x05\xff\xff\xff\xff\x00\x00", comptime lists(33) },
    };
    var generator = std.Random.DefaultPrng.init(1);
    const random = generator.random();
    for (seeds, 0..) |seed, s| {
        for (0..5_000) |_| {
            fixture.send(@intCast(1 + 4 * s), 0, seed);
            const f = fixture.instance.frame.data;
            var n: usize = std.mem.readInt(u32, f[0..4], .little);
            for (0..random.uintLessThan(usize, 5)) |_| f[random.uintLessThan(usize, n)] = random.int(u8);
            if (random.uintLessThan(u8, 4) == 0) {
                n = random.uintAtMost(usize, n);
                std.mem.writeInt(u32, f[0..4], @intCast(n), .little);
            }
            @memset(f[8..12], 0);
            fixture.instance.on(n);
        }
    }
}
