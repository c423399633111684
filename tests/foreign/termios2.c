/* For programs of another architecture under qemu-user, which knows nothing of TCGETS2 and TCSETS2: the ways in which the
 * settings of a serial port are read and set with any speed. They are turned into TCGETS and TCSETS, which it knows.
 * Preloaded into the program by packaging/test-foreign.sh. On a real machine the kernel does it, and this is not there. */

#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
    tcflag_t code;
    speed_t speed;
} SPEEDS[] = {
    {B1200, 1200},   {B2400, 2400},   {B4800, 4800},     {B9600, 9600},     {B19200, 19200},
    {B38400, 38400}, {B57600, 57600}, {B115200, 115200}, {B230400, 230400},
};

static speed_t speed_of(tcflag_t control) {
    for (size_t i = 0; i < sizeof SPEEDS / sizeof *SPEEDS; i++)
        if (SPEEDS[i].code == (control & CBAUD))
            return SPEEDS[i].speed;
    return 0;
}

static tcflag_t code_of(speed_t speed) {
    for (size_t i = 0; i < sizeof SPEEDS / sizeof *SPEEDS; i++)
        if (SPEEDS[i].speed == speed)
            return SPEEDS[i].code;
    /* A pseudo-terminal has no speed of its own. */
    return B38400;
}

/* struct termios is how struct termios2 begins. */
static int get(int handle, struct termios2 *settings) {
    struct termios plain;
    int done = syscall(SYS_ioctl, handle, TCGETS, &plain);
    if (done == 0) {
        memcpy(settings, &plain, sizeof plain);
        settings->c_ispeed = settings->c_ospeed = speed_of(plain.c_cflag);
    }
    return done;
}

static int set(int handle, unsigned long request, const struct termios2 *settings) {
    struct termios plain;
    memcpy(&plain, settings, sizeof plain);
    if ((plain.c_cflag & CBAUD) == BOTHER)
        plain.c_cflag = (plain.c_cflag & ~(tcflag_t)CBAUD) | code_of(settings->c_ospeed);
    plain.c_cflag &= ~(tcflag_t)CIBAUD;
    return syscall(SYS_ioctl, handle, request, &plain);
}

int ioctl(int handle, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    switch (request) {
    case TCGETS2: return get(handle, argument);
    case TCSETS2: return set(handle, TCSETS, argument);
    case TCSETSW2: return set(handle, TCSETSW, argument);
    case TCSETSF2: return set(handle, TCSETSF, argument);
    default: return syscall(SYS_ioctl, handle, request, argument);
    }
}
