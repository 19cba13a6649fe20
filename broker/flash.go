package broker

import (
	"log/slog"
	"sync"
	"time"
)

// widest is how far apart a flash budget may keep commits: a publisher that waits
// for one waits so long.
const widest = int64(time.Minute)

// flash keeps what the store writes inside a budget, by keeping commits apart once
// half of the reserve is used up: the more of it, the further, up to the time in
// which the budget pays for a commit. Then as much is written as the budget gives.
// The reserve is an hour's share, so a short burst costs nobody any time.
type flash struct {
	budget int64 // bytes a day; 0: none
	base   int64 // commit_interval
	log    *slog.Logger

	mu      sync.Mutex
	reserve float64 // bytes, as of at; below 0: overdrawn, by an hour's share at most
	at      int64   // when the last commit was made
	written uint64  // what the store had written by then
	cost    float64 // of a commit, lately
	over    bool
}

func newFlash(budget, base int64, log *slog.Logger) *flash {
	f := &flash{budget: budget, base: base, log: log}
	f.reserve = f.share()
	return f
}

// share is what the budget gives in an hour.
func (f *flash) share() float64 { return float64(f.budget) / 24 }

// left is what is left of the reserve. The caller holds mu.
func (f *flash) left(now int64) float64 {
	earned := float64(f.budget) * float64(now-f.at) / float64(24*time.Hour)
	return min(f.share(), f.reserve+earned)
}

// apart is how far commits are to be apart, 0 or from commit_interval up. The
// caller holds mu.
func (f *flash) apart(now int64) int64 {
	used := 1.25 * (1 - 2*f.left(now)/f.share()) // in balance a tenth of the reserve is left
	if used <= 0 {
		return 0
	}
	pace := f.cost * float64(24*time.Hour) / float64(f.budget)
	return max(f.base, int64(min(used*pace, float64(widest))))
}

// notBefore is when the next commit may be made, if it is not urgent.
func (f *flash) notBefore() int64 {
	if f.budget == 0 {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at + f.apart(f.at)
}

// spend notes a commit after which the store has written so many bytes in all.
func (f *flash) spend(now int64, written uint64) {
	if f.budget == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	bytes := float64(written - f.written)
	f.reserve = max(-f.share(), f.left(now)-bytes)
	f.at, f.written = now, written
	if f.cost == 0 {
		f.cost = bytes
	}
	f.cost += (bytes - f.cost) / 8
	f.judge(now)
}

// judge says when the budget is exceeded, and when it is kept again. The caller
// holds mu.
func (f *flash) judge(now int64) {
	left := f.left(now)
	switch {
	case !f.over && left < 0:
		f.over = true
		f.log.Warn("the store writes more than flash_budget allows, and waiting longer does not help: see tidegate_store_written_bytes_total for what is written, or raise the budget",
			"flash_budget_bytes_per_day", f.budget, "bytes_per_commit", int64(f.cost))
	case f.over && left > f.share()/4:
		f.over = false
		f.log.Info("the store keeps inside flash_budget again")
	}
}

// FlashStatus says how a flash budget is kept.
type FlashStatus struct {
	Budget   int64   `json:"budget_bytes_per_day"`    // 0: there is none
	Interval float64 `json:"commit_interval_seconds"` // how long a commit waits at the longest, as it is now
	Over     bool    `json:"over"`                    // more is written than the budget allows
}

func (f *flash) status(now int64) FlashStatus {
	st := FlashStatus{Budget: f.budget, Interval: time.Duration(f.base).Seconds()}
	if f.budget == 0 {
		return st
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.judge(now)
	st.Interval = time.Duration(max(f.base, f.apart(now))).Seconds()
	st.Over = f.over
	return st
}
