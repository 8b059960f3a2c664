package badger

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// logger gives what Badger logs to slog, one step quieter, and watches it for errors that Badger tells nobody else.
type logger struct {
	log  *slog.Logger
	fail func(error)
}

func (l *logger) Errorf(format string, args ...any) {
	message := text(format, args)
	l.log.Error("state: " + message)
	if isSyncFault(message) {
		l.fail(errors.New(message))
	}
}

func (l *logger) Warningf(format string, args ...any) { l.log.Warn("state: " + text(format, args)) }
func (l *logger) Infof(format string, args ...any)    { l.log.Debug("state: " + text(format, args)) }
func (*logger) Debugf(string, ...any)                 {}

func text(format string, args []any) string { return strings.TrimSpace(fmt.Sprintf(format, args...)) }
