/* A Modbus slave that this project did not write: unit 7 of libmodbus, over TCP and over serial lines (RTU), on all of
 * which the same coils and registers stand. Built and started by tests/support/foreign.rs.
 *
 *     libmodbus_server RTU_PATH...
 *
 * Prints the port of TCP once all are served, then the unit and the PDU of each request in hexadecimal, a line each,
 * before it is answered. Ends when its standard input does.
 *
 * There are 2000 of each table. Coils and holding registers are writable and begin as zero. Discrete inputs are set
 * where the address is divisible by three. An input register holds three times its address. Whoever reads or writes the
 * holding register 3000 + n is answered by exception n. */

#include <errno.h>
#include <modbus/modbus.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

enum { UNIT = 7, SIZE = 2000, EXCEPTIONS = 3000, LINES_MAX = 8, CONNECTIONS_MAX = 16 };

static modbus_mapping_t *held;

static void check(int is_good, const char *what) {
    if (!is_good) {
        fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
        exit(1);
    }
}

/* One request, if there is a whole one. -1: the other side has gone, or what came is no frame. */
static int serve(modbus_t *way) {
    uint8_t frame[MODBUS_TCP_MAX_ADU_LENGTH];
    int length = modbus_receive(way, frame);
    if (length <= 0)
        return length;
    int pdu = modbus_get_header_length(way);
    int checksum = pdu == 1 ? 2 : 0;
    for (int at = pdu - 1; at < length - checksum; at++)
        printf("%02x", frame[at]);
    printf("\n");
    fflush(stdout);
    unsigned address = length > pdu + 2 ? frame[pdu + 1] << 8 | frame[pdu + 2] : 0;
    if (address > EXCEPTIONS && address < EXCEPTIONS + MODBUS_EXCEPTION_MAX)
        return modbus_reply_exception(way, frame, address - EXCEPTIONS);
    return modbus_reply(way, frame, length, held);
}

static int port_of(int listener) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    check(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
    return ntohs(address.sin_port);
}

/* Accepts a connection, in the first place that is free. */
static void greet(int listener, int connections[]) {
    int connection = accept(listener, NULL, NULL);
    for (int i = 0; connection >= 0 && i < CONNECTIONS_MAX; i++)
        if (connections[i] < 0) {
            connections[i] = connection;
            return;
        }
    if (connection >= 0)
        close(connection);
}

int main(int count, char *paths[]) {
    modbus_t *lines[LINES_MAX], *tcp = modbus_new_tcp("127.0.0.1", 0);
    int connections[CONNECTIONS_MAX], line_count = count - 1, listener;
    check(line_count <= LINES_MAX, "too many lines");
    memset(connections, -1, sizeof connections);
    held = modbus_mapping_new(SIZE, SIZE, SIZE, SIZE);
    check(held && tcp, "libmodbus");
    for (int at = 0; at < SIZE; at++) {
        held->tab_input_bits[at] = at % 3 == 0;
        held->tab_input_registers[at] = 3 * at;
    }
    for (int i = 0; i < line_count; i++) {
        lines[i] = modbus_new_rtu(paths[i + 1], 115200, 'N', 8, 1);
        check(lines[i] && modbus_set_slave(lines[i], UNIT) == 0 && modbus_connect(lines[i]) == 0, paths[i + 1]);
    }
    listener = modbus_tcp_listen(tcp, CONNECTIONS_MAX);
    check(listener >= 0, "listen");
    printf("%d\n", port_of(listener));
    fflush(stdout);
    for (;;) {
        fd_set ready;
        FD_ZERO(&ready);
        FD_SET(STDIN_FILENO, &ready);
        FD_SET(listener, &ready);
        for (int i = 0; i < line_count; i++)
            FD_SET(modbus_get_socket(lines[i]), &ready);
        for (int i = 0; i < CONNECTIONS_MAX; i++)
            if (connections[i] >= 0)
                FD_SET(connections[i], &ready);
        check(select(FD_SETSIZE, &ready, NULL, NULL, NULL) >= 0, "select");
        if (FD_ISSET(STDIN_FILENO, &ready))
            return 0;
        for (int i = 0; i < line_count; i++)
            if (FD_ISSET(modbus_get_socket(lines[i]), &ready))
                serve(lines[i]);
        for (int i = 0; i < CONNECTIONS_MAX; i++)
            if (connections[i] >= 0 && FD_ISSET(connections[i], &ready)) {
                modbus_set_socket(tcp, connections[i]);
                if (serve(tcp) == -1) {
                    close(connections[i]);
                    connections[i] = -1;
                }
            }
        if (FD_ISSET(listener, &ready))
            greet(listener, connections);
    }
}
