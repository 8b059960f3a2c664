package privacy

import (
	"time"

	"github.com/postern-gateway/postern/gateway/privacy/field"
)

const day = 24 * time.Hour

// builtin are the classes that are there without being written, with the fields that the register gives them.
func builtin() []*Class {
	list := []*Class{
		{Name: "account", Summary: field.Text{En: "Who you are to us: the account, its keys and the people in it.", Zh: "您在本服务中的身份：账户、密钥与成员信息。"},
			Purposes: []Purpose{Deliver, Authenticate}, Basis: Contract, Retention: WithAccount},
		{Name: "security", Summary: field.Text{En: "What keeps others out of your account.", Zh: "用于保护账户安全的信息。"},
			Purposes: []Purpose{Authenticate, Defend}, Basis: LegitimateInterest, Retention: WithAccount},
		{Name: "audit", Summary: field.Text{En: "What was done to your account, by whom and when, under ids alone.", Zh: "对您账户的操作记录（仅编号）。"},
			Purposes: []Purpose{Defend}, Basis: LegitimateInterest, Retention: 400 * day},
		{Name: "device", Summary: field.Text{En: "Where and with what you connect.", Zh: "您连接时的网络与设备信息。"},
			Purposes: []Purpose{Deliver, Defend}, Basis: LegitimateInterest, Retention: 30 * day},
		{Name: "usage", Summary: field.Text{En: "Which calls you make, without their content.", Zh: "您的调用记录（不含内容）。"},
			Purposes: []Purpose{Deliver, Bill, Defend}, Basis: Contract, Retention: 90 * day},
		{Name: "billing", Summary: field.Text{En: "What you are charged and what you paid.", Zh: "扣费与付款记录。"},
			Purposes: []Purpose{Bill}, Basis: LegalObligation, Retention: 400 * day},
		{Name: "content", Summary: field.Text{En: "What you send and what you get back.", Zh: "您发送与收到的内容。"},
			Purposes: []Purpose{Deliver}, Basis: Contract, Retention: 30 * day},
		{Name: "creation", Summary: field.Text{En: "Outputs that are kept for you.", Zh: "为您保存的创作内容。"},
			Purposes: []Purpose{Deliver}, Basis: Contract, Retention: 30 * day},
		{Name: "support", Summary: field.Text{En: "What you write to support.", Zh: "您与客服的沟通内容。"},
			Purposes: []Purpose{Deliver}, Basis: Contract, Retention: 400 * day},
	}
	for _, c := range list {
		for _, f := range field.All() {
			if f.Class == c.Name {
				c.Fields = append(c.Fields, f.Name)
			}
		}
	}
	return list
}
