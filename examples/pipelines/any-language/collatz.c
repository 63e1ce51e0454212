/* collatz N: how many steps from N down to 1. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
	if (argc != 2) {
		fprintf(stderr, "usage: collatz N\n");
		return 2;
	}
	int steps = 0;
	for (long n = atol(argv[1]); n > 1; steps++)
		n = n % 2 ? 3 * n + 1 : n / 2;
	printf("%d\n", steps);
	return 0;
}
