/*
 * What the tests of C that run without QuickJS have in common: a table of cases, and a program that without arguments
 * prints their names, a line each, and with a number runs that one.
 */
#include <stdio.h>
#include <stdlib.h>

#define HOLDS(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition), exit(1)))

struct test_case {
    const char *name;
    void (*run)(void);
};

/* `subject` goes before each name. Returns the program's exit status. */
static int run_case(const char *subject, const struct test_case *cases, size_t count, int argc, char **argv)
{
    if (argc < 2) {
        for (size_t i = 0; i < count; i++)
            printf("%s: %s\n", subject, cases[i].name);
        return 0;
    }
    size_t chosen = strtoul(argv[1], NULL, 10);
    if (chosen >= count)
        return 2;
    cases[chosen].run();
    return 0;
}
