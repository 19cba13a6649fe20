package bridge

import (
	"context"
	"log/slog"
	"net"
)

// NewTest is [New] for tests of other packages, whose network is dial, such as
// one inside of the process and its virtual time.
func NewTest(t interface{ Helper() }, cfg Config, gateway string, local Local, log *slog.Logger,
	dial func(ctx context.Context, network, address string) (net.Conn, error),
) (*Bridge, error) {
	t.Helper()
	return newBridge(cfg, gateway, local, log, dial)
}
