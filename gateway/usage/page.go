package usage

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"iter"
	"slices"
	"time"
)

// Filter says which records are meant. The zero value means all.
type Filter struct {
	From   time.Time // calls that began then or later
	To     time.Time // calls that began before
	Key    string
	Model  string
	Route  string
	Status int // 400: that one; 4: all of 400 to 499; 0: any
}

func (f *Filter) fits(r *Record) bool {
	return (f.Key == "" || f.Key == r.Key) && (f.Model == "" || f.Model == r.Model) && (f.Route == "" || f.Route == r.Route) &&
		(f.Status == 0 || f.Status == r.Status || f.Status < 10 && f.Status == r.Status/100)
}

// Bounds of one page.
const (
	MaxPage  = 1000   // records
	maxLooks = 20_000 // records looked at for it
)

// Page is some of an account's records, the newest first.
type Page struct {
	Records []Record
	Next    string // a cursor for the page after it; empty: there are no more. A page may hold less than was asked for and have one all the same
}

// Page returns an account's records that a filter means, at most limit of them (1 to MaxPage). cursor is a page's Next, or
// empty for the first page; one that was not given for this account is ErrCursor. However few records fit, a page costs a
// bounded amount of work.
func (b *Book) Page(ctx context.Context, account string, f Filter, limit int, cursor string) (Page, error) {
	if err := b.fresh(ctx); err != nil {
		return Page{}, err
	}
	limit = min(max(limit, 1), MaxPage)
	of := digestOf(account)
	var from []byte
	if cursor != "" {
		place, ok := b.placeOf(of, cursor)
		if !ok {
			return Page{}, ErrCursor
		}
		from = append(slices.Clone(place), 0) // the next key there can be
	}
	var page Page
	looks := 0
	var last []byte
	for r, err := range b.records(ctx, of, f, from) {
		if err != nil {
			return Page{}, fmt.Errorf("read usage: %w", err)
		}
		if len(page.Records) == limit || looks == maxLooks {
			page.Next = b.cursor(of, last)
			break
		}
		looks++
		last = r.place()
		if f.fits(&r) {
			page.Records = append(page.Records, r)
		}
	}
	return page, nil
}

// Export yields all records of an account, the newest first, for its owner. A fault ends it with a non-nil error as the
// last element.
func (b *Book) Export(ctx context.Context, account string, f Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if err := b.fresh(ctx); err != nil {
			yield(Record{}, err)
			return
		}
		for r, err := range b.records(ctx, digestOf(account), f, nil) {
			if err != nil {
				yield(Record{}, fmt.Errorf("read usage: %w", err))
				return
			}
			if f.fits(&r) && !yield(r, nil) {
				return
			}
		}
	}
}

// records yields an account's records between a filter's times, from a place on. What is too old is not there, swept or
// not.
func (b *Book) records(ctx context.Context, of digest, f Filter, from []byte) iter.Seq2[Record, error] {
	oldest := b.now().Add(-b.keep)
	if f.From.After(oldest) {
		oldest = f.From
	}
	prefix := of.key(recordPrefix)
	start := append(of.key(recordPrefix), from...)
	if from == nil && !f.To.IsZero() {
		start = append(start, before(f.To)...)
	}
	return func(yield func(Record, error) bool) {
		for e, err := range b.store.Scan(ctx, prefix, start) {
			if err != nil {
				yield(Record{}, err)
				return
			}
			r, ok := decodeRecord(e.Key[len(prefix):], e.Value)
			if !ok {
				yield(Record{}, ErrCorrupt)
				return
			}
			if r.Time.Before(oldest) || !yield(r, nil) {
				return
			}
		}
	}
}

// tag is how much of the MAC of a cursor is in it, in octets.
const tag = 16

// cursor makes of a place what callers get. It says nothing in another account.
func (b *Book) cursor(of digest, place []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(b.mac([]byte("cursor"), of[:], place)[:tag:tag], place...))
}

func (b *Book) placeOf(of digest, cursor string) (place []byte, ok bool) {
	if len(cursor) > 512 {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) < tag+8 {
		return nil, false
	}
	place = raw[tag:]
	return place, subtle.ConstantTimeCompare(raw[:tag], b.mac([]byte("cursor"), of[:], place)[:tag]) == 1
}

// Accounts yields the accounts that have any usage, in no order that means anything.
func (b *Book) Accounts(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := b.fresh(ctx); err != nil {
			yield("", err)
			return
		}
		for e, err := range b.store.Scan(ctx, []byte(accountPrefix), nil) {
			if !yield(string(e.Value), err) || err != nil {
				return
			}
		}
	}
}
