package notice

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/privacy/field"
)

// section is one part of the page.
type section struct {
	Title      string
	Paragraphs []string
	Table      *table
	Notes      []string // paragraphs below the table
}

// table has a row for each class or provider; the first cell names it.
type table struct {
	Head []string
	Rows [][]string
}

// writer writes sections in one language. Every sentence stands beside the condition that makes it true.
type writer struct {
	lang string
	list []section
}

func (w *writer) text(en, zh string) string { return field.Text{En: en, Zh: zh}.In(w.lang) }

func (w *writer) open(en, zh string) { w.list = append(w.list, section{Title: w.text(en, zh)}) }

// say adds a sentence, below the section's table if it has one already. Its arguments stand in both languages in the same
// order.
func (w *writer) say(en, zh string, arguments ...any) {
	s := &w.list[len(w.list)-1]
	sentence := fmt.Sprintf(w.text(en, zh), arguments...)
	if s.Table != nil {
		s.Notes = append(s.Notes, sentence)
		return
	}
	s.Paragraphs = append(s.Paragraphs, sentence)
}

// show gives the section its table.
func (w *writer) show(t *table) { w.list[len(w.list)-1].Table = t }

// enumerate joins names as the language does.
func (w *writer) enumerate(names []string) string { return strings.Join(names, w.text(", ", "、")) }

// sections are the policy in a language.
func (s *Statement) sections(lang string) []section {
	w := &writer{lang: lang}
	w.open("About this policy", "关于本政策")
	if s.Operator != "" {
		w.say("This service is run by %s.", "本服务由 %s 运营。", s.Operator)
	}
	w.say("Using the service means accepting this policy, version %s.", "使用本服务即表示您接受本政策（版本 %s）。", s.Version)
	s.collected(w)
	s.used(w)
	s.shared(w)
	s.kept(w)
	w.open("How it is protected", "如何保护数据")
	switch {
	case s.Encrypted && s.Onward && len(s.Providers) > 0:
		w.say("Data are encrypted on the way to us, and from us to those who receive them (TLS 1.2 or later).", "数据在您与我们之间，以及我们与接收方之间的传输过程中均经过加密（TLS 1.2 或更高版本）。")
	case s.Encrypted:
		w.say("Data are encrypted on the way to us (TLS 1.2 or later).", "数据在您与我们之间的传输过程中经过加密（TLS 1.2 或更高版本）。")
	}
	w.say("Every part of the service sees only what it declares that it needs.", "服务的每个部分只能访问其声明所需的数据。")
	if s.uses("key.hash") {
		w.say("API keys are kept as a keyed hash only, so nobody can read them from what is stored.", "API 密钥仅以带密钥的哈希值形式保存，任何人都无法从存储中读取密钥。")
	}
	s.rights(w)
	return w.list
}

// uses reports whether a field is in use.
func (s *Statement) uses(name string) bool {
	return slices.ContainsFunc(s.Classes, func(c privacy.Category) bool {
		return slices.ContainsFunc(c.Fields, func(i privacy.Item) bool { return i.Name == name })
	})
}

// did reports whether one of some fields is in use, and whether its class goes where act says.
func (s *Statement) did(act privacy.Act, fields ...string) bool {
	return slices.ContainsFunc(s.Classes, func(c privacy.Category) bool {
		return slices.Contains(c.Acts, act) && slices.ContainsFunc(c.Fields, func(i privacy.Item) bool { return slices.Contains(fields, i.Name) })
	})
}

func (s *Statement) collected(w *writer) {
	w.open("What is collected", "我们收集的数据")
	t := &table{Head: []string{w.text("Data", "数据类别"), w.text("What it is", "说明"), w.text("What belongs to it", "包含内容")}}
	for _, c := range s.Classes {
		var fields []string
		for _, f := range c.Fields {
			fields = append(fields, f.About.In(w.lang))
		}
		t.Rows = append(t.Rows, []string{w.class(c.Name), c.Summary.In(w.lang), strings.Join(fields, w.text("; ", "；"))})
	}
	w.show(t)
	w.say("Nothing else is stored, logged or passed on. Sensitive data are not asked for.", "除此之外，我们不存储、不记录、也不转交其他数据。我们不会主动索取敏感个人信息。")
	if content := []string{"prompt", "reference_image", "output"}; s.uses("prompt") && !s.did(privacy.Logs, content...) {
		w.say("The service writes no prompts, images or outputs to its own logs.", "服务自身的日志不记录提示词、图片或输出内容。")
	}
}

func (s *Statement) used(w *writer) {
	w.open("What it is used for", "数据的用途")
	t := &table{Head: []string{w.text("Data", "数据类别"), w.text("Used for", "用途"), w.text("Why that is allowed", "依据")}}
	communicates := false
	for _, c := range s.Classes {
		var purposes []string
		for _, p := range c.Purposes {
			purposes = append(purposes, purpose(p).In(w.lang))
			communicates = communicates || p == privacy.Communicate
		}
		t.Rows = append(t.Rows, []string{w.class(c.Name), w.enumerate(purposes), bases(c.Basis).In(w.lang)})
	}
	w.show(t)
	w.say("There are no other purposes.", "除此之外没有其他用途。")
	if communicates {
		w.say("You hear news from us only if you have agreed to it, and you can withdraw that at any time.", "仅在您同意后，我们才会向您发送资讯；您可以随时撤回同意。")
	}
}

// class is a class's name for people.
func (w *writer) class(name string) string {
	if t, ok := map[string]field.Text{
		"account": {En: "Account", Zh: "账户信息"}, "security": {En: "Security", Zh: "安全信息"}, "audit": {En: "Record of what was done", Zh: "操作记录"}, "device": {En: "Device and network", Zh: "设备与网络信息"},
		"usage": {En: "Usage", Zh: "使用记录"}, "billing": {En: "Billing", Zh: "账单信息"}, "content": {En: "Content", Zh: "内容"},
		"creation": {En: "Creations", Zh: "创作"}, "support": {En: "Support", Zh: "客服"},
	}[name]; ok {
		return t.In(w.lang)
	}
	return name
}

func purpose(p privacy.Purpose) field.Text {
	return map[privacy.Purpose]field.Text{
		privacy.Deliver: {En: "delivering the service", Zh: "提供服务"}, privacy.Authenticate: {En: "knowing who calls", Zh: "身份验证"}, privacy.Bill: {En: "billing", Zh: "计费"},
		privacy.Defend: {En: "defence against abuse", Zh: "防范滥用"}, privacy.Improve: {En: "improving the service", Zh: "改进服务"}, privacy.Communicate: {En: "news, if you agree", Zh: "经同意发送资讯"},
	}[p]
}

func bases(b privacy.Basis) field.Text {
	return map[privacy.Basis]field.Text{
		privacy.Contract: {En: "it is needed for the service you use", Zh: "履行服务合同所必需"}, privacy.Consent: {En: "your consent", Zh: "您的同意"},
		privacy.LegalObligation: {En: "the law requires it", Zh: "法律义务"}, privacy.LegitimateInterest: {En: "a legitimate interest", Zh: "正当利益"},
	}[b]
}

func (s *Statement) shared(w *writer) {
	w.open("With whom it is shared", "数据的共享")
	w.say("Personal data are not sold.", "我们不出售个人数据。")
	if len(s.Providers) == 0 && !s.Fetches {
		w.say("They are shared with nobody.", "我们不与任何人共享个人数据。")
		return
	}
	t := &table{Head: []string{w.text("Recipient", "接收方"), w.text("Receives", "接收的数据"), w.text("Keeps it", "保存期限"), w.text("Trains models on it", "是否用于训练模型")}}
	for _, p := range s.Providers {
		var classes []string
		for _, c := range p.Classes {
			classes = append(classes, w.class(c))
		}
		keeps, training := w.text("not stated", "未说明"), w.text("not stated", "未说明")
		if p.Keeps != nil {
			keeps = w.text("not at all", "不保存")
			if p.keeps > 0 {
				keeps = privacy.Span(p.keeps).In(w.lang)
			}
		}
		if p.Training != nil {
			training = w.text("no", "否")
			if *p.Training {
				training = w.text("only with your consent", "仅在您同意后")
			}
		}
		t.Rows = append(t.Rows, []string{p.Name, w.enumerate(classes), keeps, training})
	}
	if len(t.Rows) > 0 {
		w.say("Only the following receive data, and only the classes named:", "仅下列接收方会收到数据，且仅限所列类别：")
		w.show(t)
	}
	if s.Fetches {
		w.say("To find out who calls, the service may ask other services that it is configured to trust.", "为确认调用者身份，服务可能会向其配置信任的其他服务查询。")
	}
	trains, unknown := false, false
	for _, p := range s.Providers {
		trains, unknown = trains || p.Training != nil && *p.Training, unknown || p.content && p.Training == nil
	}
	switch {
	case len(s.Providers) == 0 || !s.did(privacy.Shares, "prompt", "request.body"):
	case trains && !unknown:
		w.say("What you send and what you get back are used to train models only with your consent.", "仅在您同意后，您发送与收到的内容才会用于训练模型。")
	case !unknown:
		w.say("What you send and what you get back are not used to train models.", "您发送与收到的内容不会用于训练模型。")
	}
}

func (s *Statement) kept(w *writer) {
	w.open("How long it is kept", "数据的保存期限")
	t := &table{Head: []string{w.text("Data", "数据类别"), w.text("Kept at most", "最长保存期限")}}
	for _, c := range s.Classes {
		keeps := privacy.Span(c.Retention).In(w.lang)
		if !slices.Contains(c.Acts, privacy.Stores) && !slices.Contains(c.Acts, privacy.Logs) && !slices.Contains(c.Acts, privacy.Traces) {
			keeps = w.text("not stored by us; only while a request is answered", "我们不保存，仅在处理请求期间使用")
		}
		t.Rows = append(t.Rows, []string{w.class(c.Name), keeps})
	}
	w.show(t)
	if s.uses("replay.reply") || s.uses("plugin.cache") {
		w.say("Replies may be cached for a short time, apart for each account, so that the same request gets the same answer.", "应答可能会被短暂缓存，各账户相互隔离，以便相同请求获得相同应答。")
	}
	if s.uses("ledger.account") {
		w.say("Billing records name only the account's id.", "账单记录仅包含账户编号。")
	}
}

func (s *Statement) rights(w *writer) {
	w.open("Your rights and how to reach us", "您的权利与联系方式")
	w.say("To see, correct, get a copy of or delete your data, or to ask about this policy, write to %s.", "如需查阅、更正、获取副本或删除您的数据，或对本政策有任何疑问，请联系：%s。", s.Contact)
}

// plain is the policy in plain text.
func plain(sections []section) string {
	var b strings.Builder
	for _, s := range sections {
		fmt.Fprintf(&b, "\n%s\n", s.Title)
		if len(s.Paragraphs) > 0 {
			b.WriteString("\n")
		}
		for _, p := range s.Paragraphs {
			b.WriteString(p + "\n")
		}
		if s.Table != nil {
			for _, row := range s.Table.Rows {
				fmt.Fprintf(&b, "\n%s\n", row[0])
				for i, cell := range row[1:] {
					fmt.Fprintf(&b, "  %s: %s\n", s.Table.Head[i+1], cell)
				}
			}
		}
		if len(s.Notes) > 0 {
			b.WriteString("\n")
		}
		for _, n := range s.Notes {
			b.WriteString(n + "\n")
		}
	}
	return b.String()
}
