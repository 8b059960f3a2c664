//! greet greets the upstream in the caller's name, and leaves its own name on the response.

const postern = @import("postern");

/// The slots of hook "request", in the order of plugin.hcl.
const Slot = struct {
    const name = 0; // header x-name
    const model = 1; // attribute model
    const to = 2; // argument to
};

/// A stage of the policy.
const Greet = struct {
    greeting: []const u8,

    pub fn configure(stage: *postern.Stage) !Greet {
        const text = stage.config.member("greeting").text() orelse "";
        return .{ .greeting = try stage.allocator.dupe(u8, text) };
    }

    pub fn on(greet: *Greet, event: *const postern.Event, result: *postern.Result) !void {
        switch (event.kind) {
            .request => {
                const who = event.header(Slot.name) orelse event.value(Slot.to).text() orelse "";
                if (who.len == 0) {
                    return result.respond(400, "no_name", "Say who you are in the header x-name.");
                }
                result.setHeader("x-greeting", greet.greeting);
                result.append(", ");
                result.append(who);
            },
            .response => {
                result.setHeader("x-seen-by", "greet");
                result.removeHeader("server");
            },
            else => {},
        }
    }
};

pub const panic = postern.panic;

comptime {
    postern.plugin(Greet);
}
