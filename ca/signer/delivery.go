package signer

import (
	"context"
	"fmt"
	"time"
)

// renewal keeps callers from asking for the same delivery key all at once. Who holds its turn asks.
type renewal struct {
	turn  chan struct{}
	asked time.Time // by the clock of DeliveryKey's callers
}

// askAgain is how long a key that the room gave although its hour is over is taken for what it is: the two
// clocks differ, and sealing to it does no harm.
const askAgain = 10 * time.Second

// DeliveryKey gives the public key to seal subjects' secrets to; "" if the room has none. It is the one that
// the room named last, and costs nothing; the room is asked only if that key's hour is over at the time now.
func (c *Client) DeliveryKey(ctx context.Context, now time.Time) (string, error) {
	if key := c.Hello().State.Delivery; key.serves(now) {
		return key.Public, nil
	}
	select {
	case c.renewal.turn <- struct{}{}:
		defer func() { <-c.renewal.turn }()
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for the delivery key: %w", ctx.Err())
	}
	key := c.Hello().State.Delivery
	if since := now.Sub(c.renewal.asked); key.serves(now) || since >= 0 && since < askAgain {
		return key.Public, nil
	}
	hello, err := c.FreshHello(ctx)
	if err != nil {
		return "", fmt.Errorf("asking for the delivery key: %w", err)
	}
	c.renewal.asked = now
	return hello.State.Delivery.Public, nil
}

// serves tells whether there is nothing to ask: the key's hour is not over, or the room has no keys.
func (k DeliveryKey) serves(now time.Time) bool { return k.Public == "" || now.Before(k.Until) }

func (c *Client) noteDelivery(k DeliveryKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hello.State.Delivery = k
}
