package lab

import (
	"fmt"
	"os"
	"strconv"
)

// slowdownVariable says what Config.Slowdown is where it is 0.
const slowdownVariable = "PORTCULLIS_SLOWDOWN"

// slowdown fills in the default. A machine cannot be made faster: what is asserted
// about packets that must not come needs all the time that others get.
func slowdown(n int) (int, error) {
	if n == 0 {
		text := os.Getenv(slowdownVariable)
		if text == "" {
			return 1, nil
		}
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			return 0, fmt.Errorf("%s: %w", slowdownVariable, err)
		}
	}
	if n < 1 || n > 100 {
		return 0, fmt.Errorf("slowdown %d: want 1 to 100", n)
	}
	return n, nil
}
