package nft

import "context"

// Watch implements Kernel.
func (k *kernel) Watch(ctx context.Context, ready, changed func()) error {
	return k.watcher.Watch(ctx, k.netns, k.buffer, ready, changed)
}
