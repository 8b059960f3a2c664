// Package field is the register of the personal data that the program stores, logs, or hands to a plugin or an upstream.
// Its main type is Field. A test reads the source of the program and fails where something is stored, logged or shown that
// stands neither here nor in Plain.
package field

import "strings"

// Text is what people read, in the languages the program speaks.
type Text struct {
	En string `json:"en"`
	Zh string `json:"zh"`
}

// In is the text in a language: "zh" or, for any other, English.
func (t Text) In(lang string) string {
	if lang == "zh" {
		return t.Zh
	}
	return t.En
}

// Feature is a part of the program that stores fields where a configuration uses it.
type Feature string

// The features. A field of none is never stored.
const (
	Accounts  Feature = "accounts"  // accounts and their API keys; always there
	Ledger    Feature = "ledger"    // charges, credits, refunds; always there
	Replays   Feature = "replays"   // first replies, for requests that come again under an idempotency key
	State     Feature = "state"     // what plugins with the grant state keep in memory
	Cache     Feature = "cache"     // what plugins with the grant cache keep in memory, apart for each account
	People    Feature = "people"    // who signs in: addresses, passwords, teams, consents
	Sessions  Feature = "sessions"  // where they are signed in
	Usage     Feature = "usage"     // a record of every call; always there
	Sums      Feature = "sums"      // what an account's calls of each hour and day come to; always there
	Creations Feature = "creations" // outputs that are kept for their owner
	Audit     Feature = "audit"     // who of the operators and people did what
	Support   Feature = "support"   // questions and their answers
)

// Field is one kind of personal data.
type Field struct {
	Name    string
	Class   string // the data class it belongs to where nothing else is written
	About   Text
	Feature Feature // what stores it; empty: nothing does

	Records    []string // where it stands in the store: "package.Type.Field" below gateway/, or with ".*" every field of the type
	Log        []string // keys of log lines that hold it
	Access     []string // those that only the access log has
	Spans      []string // attributes of spans that hold it
	Attributes []string // of the catalogue; with ".*" all below that name
	Headers    []string // fields of a request's or reply's head, lower case
}

// All is the register, class by class.
func All() []Field {
	return []Field{
		// account
		{Name: "account.id", Class: "account", About: Text{"the account's id", "账户编号"}, Feature: Accounts,
			Records: []string{"account.Account.ID", "account.Key.Account"}, Log: []string{"account"}, Attributes: []string{"identity.account"}},
		{Name: "account.name", Class: "account", About: Text{"the account's name", "账户名称"}, Feature: Accounts, Records: []string{"account.Account.Name", "account.accountRecord.Sealed"}},
		{Name: "account.status", Class: "account", About: Text{"when the account was made and whether it is active", "账户创建时间与状态"}, Feature: Accounts,
			Records: []string{"account.Account.Created", "account.Account.Status"}},
		{Name: "key.id", Class: "account", About: Text{"the id of an API key", "API 密钥编号"}, Feature: Accounts,
			Records: []string{"account.Key.ID"}, Attributes: []string{"identity.key"}},
		{Name: "key.name", Class: "account", About: Text{"the name of an API key", "API 密钥名称"}, Feature: Accounts,
			Records: []string{"account.Key.Name"}, Attributes: []string{"identity.name"}},
		{Name: "key.rights", Class: "account", About: Text{"what an API key may do", "API 密钥权限"}, Feature: Accounts,
			Records: []string{"account.keyRecord.Sealed", "account.Key.Scopes", "exchange.Allowance.Models", "exchange.Allowance.Routes", "exchange.Allowance.Cap", "exchange.Allowance.Rate"}, Attributes: []string{"identity.scopes"}},
		{Name: "key.times", Class: "account", About: Text{"when an API key was made, changed, revoked and last used", "API 密钥的创建、更换、撤销与最近使用时间"}, Feature: Accounts,
			Records: []string{"account.Key.Created", "account.Key.Expires", "account.Key.Revoked", "account.Key.Rotated", "account.Key.Used", "account.Key.Overlap"}},
		{Name: "key.networks", Class: "account", About: Text{"the networks that an API key may be used from", "API 密钥允许使用的网络"}, Feature: Accounts,
			Records: []string{"exchange.Allowance.Networks"}},
		{Name: "person.email", Class: "account", About: Text{"the e-mail address", "电子邮箱地址"}, Feature: People, Records: []string{"person.private.Email"}},
		{Name: "person.id", Class: "account", About: Text{"the person's id, since when there is one, and whether they may sign in", "个人编号、注册时间与状态"}, Feature: People,
			Records: []string{"person.entry.ID", "person.entry.Created", "person.entry.Status", "person.entry.Sealed"}},
		{Name: "person.name", Class: "account", About: Text{"the name a person gives", "个人填写的姓名"}, Feature: People, Records: []string{"person.private.Name"}},
		{Name: "person.preferences", Class: "account", About: Text{"language and other preferences", "语言等偏好设置"}, Feature: People, Records: []string{"person.private.Language"}},
		{Name: "person.teams", Class: "account", About: Text{"roles and invitations in teams", "团队中的角色与邀请"}, Feature: People,
			Records: []string{"person/team.Membership.*", "person/team.Invitation.*", "person/team.invitationRecord.*"}},
		{Name: "person.acceptance", Class: "account", About: Text{"which version of this policy was accepted, and when", "接受本政策的版本与时间"}, Feature: People, Records: []string{"person.private.Accepted"}},
		{Name: "person.consents", Class: "account", About: Text{"consents given and withdrawn, and when", "同意与撤回同意的记录"}, Feature: People, Records: []string{"person.private.Consents"}},
		{Name: "person.mail", Class: "account", About: Text{"messages to a person that wait to be sent", "等待发送的邮件"}, Feature: People,
			Records: []string{"mail.record.*", "mail.Message.*"}},
		{Name: "person.requests", Class: "account", About: Text{"requests about one's own data, and the archive made for one", "就本人数据提出的申请及为此生成的数据包"}, Feature: People,
			Records: []string{"rights.Request.*", "rights.record.*"}},
		{Name: "attribute.other", Class: "account", About: Text{"what a policy found out about a caller, such as a claim of a signed token", "策略得出的调用者信息，例如签名令牌中的声明"},
			Attributes: []string{"attribute"}},

		// security
		{Name: "key.hash", Class: "security", About: Text{"a keyed hash of each API key, never the key", "API 密钥的带密钥哈希值（不保存密钥本身）"}, Feature: Accounts,
			Records: []string{"account.keyRecord.Sum", "account.keyRecord.Former", "account.formerRecord.*"}},
		{Name: "credential", Class: "security", About: Text{"API keys, tokens and cookies that a request carries", "请求携带的 API 密钥、令牌与 Cookie"},
			Headers: []string{"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "set-cookie", "signature", "signature-input"}},
		{Name: "client_certificate", Class: "security", About: Text{"the name in a client certificate", "客户端证书中的名称"}, Attributes: []string{"request.tls.peer"}},
		{Name: "person.password", Class: "security", About: Text{"a slow hash of the password, never the password", "密码的慢哈希值（不保存密码本身）"}, Feature: People, Records: []string{"person.private.Hash"}},
		{Name: "person.factors", Class: "security", About: Text{"second factors: one-time code secrets and public keys of passkeys", "双重验证：一次性验证码密钥与通行密钥公钥"}, Feature: People,
			Records: []string{"person/factor.Set.*", "person.private.Misses"}},
		{Name: "person.sessions", Class: "security", About: Text{"sessions that are signed in", "登录会话"}, Feature: Sessions, Records: []string{"person/session.Session.*", "person.entry.Epoch"}},
		{Name: "person.links", Class: "security", About: Text{"links that were mailed and steps of a sign-in that are not complete", "已发送的邮件链接与未完成的登录步骤"}, Feature: People,
			Records: []string{"person/token.Token.*", "person/token.Letter.*"}},
		{Name: "person.attempts", Class: "security", About: Text{"failed attempts to sign in, by person and network", "按个人与网络统计的登录失败次数"}, Feature: People},

		// audit
		{Name: "audit.entry", Class: "audit", About: Text{"what was done to an account, by whom and when", "对账户的操作、操作者与时间"}, Feature: Audit,
			Records: []string{"audit.Entry.*"}},

		// device
		{Name: "client_address", Class: "device", About: Text{"the network address", "网络地址"},
			Attributes: []string{"request.remote"}, Headers: []string{"x-forwarded-for", "forwarded", "x-real-ip"}},
		{Name: "client_program", Class: "device", About: Text{"the program and language that a request names", "请求中的程序与语言信息"},
			Attributes: []string{"request.user_agent"}, Headers: []string{"user-agent", "accept-language", "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform"}},
		{Name: "client_page", Class: "device", About: Text{"the web page that a request comes from", "发出请求的网页"}, Headers: []string{"origin", "referer"}},
		{Name: "person.devices", Class: "device", About: Text{"the network and program that a session was begun from", "登录时的网络与程序"}, Feature: Sessions, Records: []string{"person/session.sessionRecord.Sealed", "person/session.origin.*"}},
		{Name: "header.other", Class: "device", About: Text{"other fields that a program puts into a request's head", "程序写入请求头的其他字段"},
			Attributes: []string{"request.headers", "response.headers"}, Headers: []string{"*"}},

		// usage
		{Name: "call.id", Class: "usage", About: Text{"the id of a call", "调用编号"},
			Records: []string{"ledger/record.Entry.Exchange", "ledger/record.Intent.Exchange", "ledger/record.Attempt.Exchange"},
			Log:     []string{"exchange"}, Spans: []string{"postern.exchange"}, Attributes: []string{"request.id"}},
		{Name: "call.details", Class: "usage", About: Text{"the route, method, status, sizes and durations of a call", "调用的路由、方法、状态、大小与耗时"},
			Log: []string{"route", "status", "stage"}, Access: []string{"method", "protocol", "took_ms", "sent", "problem", "refused", "fuel"},
			Spans:      []string{"http.request.method", "http.route", "http.response.status_code", "network.protocol.version"},
			Attributes: []string{"request.method", "request.host", "request.length", "response.status", "response.length", "route.name", "call.operation", "call.stream"}},
		{Name: "call.model", Class: "usage", About: Text{"the model asked for and the provider that answered", "所请求的模型与应答的服务商"},
			Log: []string{"model", "upstream", "attempts"}, Spans: []string{"postern.upstream", "postern.attempts"},
			Attributes: []string{"model", "targets", "target", "upstream", "response.usage.model", "response.usage.upstream"}},
		{Name: "call.units", Class: "usage", About: Text{"how much a call used, such as tokens", "调用用量，例如令牌数"},
			Access: []string{"prompt", "completion", "estimated"}, Attributes: []string{"usage.max", "usage.max.*", "response.usage", "response.usage.*"}},
		{Name: "usage.record", Class: "usage", About: Text{"a record of each call: time, key, route, model, amounts, status", "每次调用的记录：时间、密钥、路由、模型、金额、状态"}, Feature: Usage,
			Records: []string{"usage.Record.*"}},
		{Name: "plugin.state", Class: "usage", About: Text{"counters that policies keep, by what the configuration counts", "策略按配置维护的计数"}, Feature: State},
		{Name: "plugin.log", Class: "usage", About: Text{"what a policy writes to the log", "策略写入日志的内容"}, Log: []string{"message"}},

		// billing
		{Name: "ledger.account", Class: "billing", About: Text{"who is charged, under the account's id", "付费账户（仅编号）"}, Feature: Ledger,
			Records: []string{"ledger/record.Entry.From", "ledger/record.Entry.To", "ledger/record.Intent.Account", "ledger/record.Account.*", "ledger/record.Keyed.Account"}},
		{Name: "ledger.amounts", Class: "billing", About: Text{"amounts, balances and prices", "金额、余额与价格"}, Feature: Ledger,
			Records: []string{"ledger/record.Entry.Amount", "ledger/record.Entry.Balance", "ledger/record.Entry.Held", "ledger/record.Entry.Price", "ledger/record.Entry.Row",
				"ledger/record.Intent.Held", "ledger/record.Intent.Price", "ledger/record.Spend.*", "ledger/record.Keyed.Amount", "ledger/record.Marker.*"}},
		{Name: "ledger.calls", Class: "billing", About: Text{"for each charge the time, model, units used and the id of the key", "每笔扣费的时间、模型、用量与密钥编号"}, Feature: Ledger,
			Records: []string{"ledger/record.Entry.Time", "ledger/record.Entry.Kind", "ledger/record.Entry.Flags", "ledger/record.Entry.Ref", "ledger/record.Entry.Of", "ledger/record.Entry.Model",
				"ledger/record.Entry.Upstream", "ledger/record.Entry.UpstreamModel", "ledger/record.Entry.Attempts", "ledger/record.Entry.Usage", "ledger/record.Entry.Key", "ledger/record.Intent.Key",
				"ledger/record.Intent.Model", "ledger/record.Intent.Placed", "ledger/record.Intent.Attempts", "ledger/record.Intent.Checkpoint",
				"ledger/record.Attempt.Upstream", "ledger/record.Attempt.Model", "ledger/record.Attempt.Number", "ledger/record.Attempt.Durability",
				"ledger/record.Keyed.Kind", "ledger/record.Keyed.Hold", "ledger/record.Keyed.Time", "ledger/record.Keyed.Key"},
			Log: []string{"hold", "amount", "held", "receipt"}, Attributes: []string{"hold"}},
		{Name: "ledger.notes", Class: "billing", About: Text{"notes and tags of a charge or credit", "扣费或充值的备注与标签"}, Feature: Ledger,
			Records: []string{"ledger/record.Entry.Note", "ledger/record.Entry.Tags", "ledger/record.Intent.Tags"}},

		{Name: "usage.sums", Class: "billing", About: Text{"what an account's calls come to in each hour and day, by model and key", "账户每小时与每天按模型和密钥的调用汇总"}, Feature: Sums,
			Records: []string{"usage.Sum.*"}},

		// content
		{Name: "prompt", Class: "content", About: Text{"prompts and other text sent to a model", "发送给模型的提示词与文本"}},
		{Name: "reference_image", Class: "content", About: Text{"images and files sent to a model", "发送给模型的参考图片与文件"}},
		{Name: "output", Class: "content", About: Text{"what a model answers", "模型的输出"}},
		{Name: "request.body", Class: "content", About: Text{"the body of any other request", "其他请求的正文"}},
		{Name: "response.body", Class: "content", About: Text{"the body of any other reply", "其他应答的正文"}},
		{Name: "request.address", Class: "content", About: Text{"the path and query of a request", "请求的路径与查询参数"}, Attributes: []string{"request.path", "request.query"}},
		{Name: "replay.reply", Class: "content", About: Text{"the reply to a call with an idempotency key, so that it is not made twice", "带幂等键调用的应答，用于避免重复执行"}, Feature: Replays,
			Records: []string{"replay.record.*"}},
		{Name: "plugin.cache", Class: "content", About: Text{"replies kept for a while to answer the same account's same request again", "为同一账户的相同请求暂存的应答"}, Feature: Cache},

		// creation, support
		{Name: "creation", Class: "creation", About: Text{"outputs kept for their owner, encrypted", "为所有者加密保存的创作内容"}, Feature: Creations,
			Records: []string{"creation.Info.*"}},
		{Name: "support.thread", Class: "support", About: Text{"questions to support and their answers", "向客服提出的问题与答复"}, Feature: Support},
	}
}

// Plain is what the program writes or shows that is about nobody: names of its own parts, counts and faults. Words and
// records in it are no personal data, whatever the configuration.
type Plain struct {
	Log        []string // keys of log lines
	Spans      []string
	Attributes []string
	Headers    []string
	Records    []string // as in Field
	Labels     []string // of metrics; there are no others, so none can name a person
}

// Impersonal lists it.
func Impersonal() Plain {
	return Plain{
		Log: []string{
			"error", "panic", "stack", // faults of the program: what they quote of a request is kept out where they are made
			"version", "node", "dir", "config", "listeners", "listener", "address", "file", "at", "detail", // the configuration
			"endpoint", "for", "took", "cached", "digest", "calls", "keys", "used", "limit", "code", "after", "receive", "send", "want", "fix",
			"plugin", "failures", "kind", "allowed", "dropped_octets", "waited", "fetch", "to", "outcome", "path", "records", "hours", "days",
			"letter", "tries", "next", "reason", "page",
		},
		Attributes: []string{"request.scheme", "request.protocol", "request.tls.version", "request.upgrade", "listener.name", "fuel", "call.format"},
		Headers: []string{
			"accept", "accept-encoding", "accept-ranges", "cache-control", "content-encoding", "content-language", "content-length", "content-type", "date", "etag", "expires",
			"host", "if-match", "if-modified-since", "if-none-match", "last-modified", "location", "pragma", "range", "retry-after", "server", "te", "vary", "via", "warning",
			"access-control-request-method", "access-control-request-headers", "access-control-request-private-network",
			"strict-transport-security", "x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy", "permissions-policy", "cross-origin-resource-policy",
			"openai-beta", "anthropic-version", "anthropic-beta", "traceparent", "x-forwarded-proto", "x-forwarded-host", "content-digest", "postern-keep",
		},
		Labels:  []string{"listener", "route", "protocol", "status", "code", "upstream", "plugin", "phase", "kind", "meter", "outcome", "model", "unit", "estimated", "reason", "result", "version", "state", "priority", "tried"},
		Records: []string{"ledger/record.Head.*", "ledger/record.Floor.*", "ledger/record.Entry.Seq", "ledger/record.Marker.Seq", "ledger/record.Keyed.Seq", "privacy/notice.Edition.*", "person.removal.*", "audit.head.*", "rights.Swept.*"},
	}
}

// Stored says of every prefix of keys in the store, without the slash at its end, which record stands there: a type below
// gateway/, whose every field stands in Records. "" is for what is no record of fields: a secret, a number, an index.
func Stored() map[string]string {
	return map[string]string{
		"account/secret": "", "account/a": "account.accountRecord", "account/k": "account.keyRecord", "account/u": "",
		"ledger": "", "ledger/a": "ledger/record.Account", "ledger/b": "ledger/record.Account", "ledger/f": "ledger/record.Floor", "ledger/h": "ledger/record.Head",
		"ledger/i": "ledger/record.Intent", "ledger/k": "ledger/record.Keyed", "ledger/p": "", "ledger/s": "ledger/record.Spend", "ledger/t": "ledger/record.Entry", "ledger/u": "ledger/record.Marker", "ledger/x": "",
		"creation/c": "", "creation/d": "", "creation/e": "", "creation/i": "creation.Info", "creation/q": "",
		"person/secret": "", "person/p": "person.individual", "person/e": "", "person/x": "person.removal", "person/s": "person/session.sessionRecord", "person/sp": "",
		"person/m": "person/team.Membership", "person/mp": "", "person/i": "person/team.invitationRecord", "person/ip": "", "person/t": "person/token.Token", "person/tp": "",
		"mail/q": "mail.record",
		"replay": "replay.record",
		"usage":  "", "usage/a": "", "usage/d": "usage.Sum", "usage/f": "", "usage/g": "", "usage/h": "usage.Sum", "usage/m": "", "usage/r": "usage.Record", "usage/s": "",
		"rights/r": "rights.record", "rights/p": "", "rights/o": "", "rights/e": "", "rights/a": "", "rights/key": "", "rights/swept": "rights.Swept",
		"privacy": "privacy/notice.Edition",
		"audit":   "", "audit/begun": "audit.Entry", "audit/chain": "audit.head", "audit/entry": "audit.Entry",
	}
}

// Find looks a field of the register up.
func Find(name string) (Field, bool) {
	for _, f := range All() {
		if f.Name == name {
			return f, true
		}
	}
	return Field{}, false
}

// covers reports whether name stands in a list, or below an entry that ends in ".*".
func covers(list []string, name string) bool {
	for _, e := range list {
		if above, ok := strings.CutSuffix(e, ".*"); e == name || ok && strings.HasPrefix(name, above+".") {
			return true
		}
	}
	return false
}

// OfAttribute names the field that an attribute of the catalogue shows; "" where it is about nobody. A member of an open
// group is a field of its own: "header.x-team" for request.headers["x-team"], "attribute.jwt.team" for
// attribute["jwt.team"]. ok is false for an attribute that the register does not know.
func OfAttribute(name string) (field string, ok bool) {
	group, key, member := strings.Cut(strings.TrimSuffix(name, `"]`), `["`)
	switch {
	case member && group == "attribute":
		return "attribute." + key, true
	case member:
		return OfHeader(key), true
	}
	plain := Impersonal()
	for _, f := range All() {
		if covers(f.Attributes, name) {
			return f.Name, true
		}
	}
	return "", covers(plain.Attributes, name)
}

// OfHeader names the field that a header belongs to; "" where it is about nobody. "*" is all of them, as "header.other".
// What the register does not know is a field of its own, "header.x-team".
func OfHeader(name string) string {
	name = strings.ToLower(name)
	if covers(Impersonal().Headers, name) {
		return ""
	}
	for _, f := range All() {
		if covers(f.Headers, name) {
			return f.Name
		}
	}
	return "header." + name
}

// OfLog names the field that a key of a log line or an attribute of a span holds. ok is false for one the register does not know.
func OfLog(key string) (field string, ok bool) {
	for _, f := range All() {
		if covers(f.Log, key) || covers(f.Access, key) || covers(f.Spans, key) {
			return f.Name, true
		}
	}
	plain := Impersonal()
	return "", covers(plain.Log, key) || covers(plain.Spans, key)
}

// OfRecord reports whether the register knows what stands in one field of a stored record: "account.Account.Name".
func OfRecord(name string) (field string, ok bool) {
	for _, f := range All() {
		if covers(f.Records, name) {
			return f.Name, true
		}
	}
	return "", covers(Impersonal().Records, name)
}
