package postern

import "github.com/postern-gateway/postern/sdk/abi"

// Instance runs one Plugin behind the ABI: it takes frames and gives results. A module has one; plugintest makes one for
// each native instance.
type Instance struct {
	plugin Plugin
	host   *Host
	frame  []byte
	event  Event
	result Result
}

// NewInstance returns an instance of p that asks b.
func NewInstance(p Plugin, b Backend) *Instance {
	host := NewHost(b)
	return &Instance{
		plugin: p, host: host,
		frame:  make([]byte, abi.MinFrame),
		event:  Event{Host: host},
		result: Result{ops: make([]byte, 0, 4<<10)},
	}
}

// Frame is the buffer the host writes frames to.
func (i *Instance) Frame() []byte { return i.frame }

// Grow makes the frame buffer hold at least n octets and returns it; what was in it is lost.
func (i *Instance) Grow(n int) []byte {
	if n > len(i.frame) && n <= abi.MaxFrame {
		i.frame = make([]byte, n)
	}
	return i.frame
}

// Configure hands the first n octets of the buffer, a frame of EventConfigure, to the plugin.
func (i *Instance) Configure(n int) (abi.Action, []byte) {
	i.result.reset()
	if !i.read(n) {
		return i.fail("malformed frame")
	}
	config, _ := i.event.Body()
	v, _, _ := abi.ReadValue(config)
	err := i.plugin.Configure(&Stage{Number: i.event.Stage, Phase: i.event.Phase, Config: v, Host: i.host})
	if err != nil {
		return i.fail(err.Error())
	}
	return abi.ActionContinue, nil
}

// On hands the first n octets of the buffer, a frame, to the plugin. The operations are valid until the next call.
func (i *Instance) On(n int) (abi.Action, []byte) {
	i.result.reset()
	if !i.read(n) {
		return i.fail("malformed frame")
	}
	if err := i.plugin.On(&i.event, &i.result); err != nil {
		return i.fail(err.Error())
	}
	if len(i.result.ops) > abi.MaxFrame {
		return i.fail("the result is longer than 16777215 octets")
	}
	return i.result.action, i.result.ops
}

func (i *Instance) read(n int) bool {
	return n >= 0 && n <= len(i.frame) && i.event.read(i.frame[:n:n])
}

// fail drops what the plugin wrote and says why, in the shape of a response nobody sees.
func (i *Instance) fail(why string) (abi.Action, []byte) {
	i.result.reset()
	i.result.Respond(500, "plugin_error", why[:min(len(why), 1<<10)])
	return abi.ActionError, i.result.ops
}
