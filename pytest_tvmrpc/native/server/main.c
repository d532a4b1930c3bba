/* tvmrpc-server: serves this machine's devices over TVM's RPC. Options, and what is found out before
 * the first client comes. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server.h"

#ifndef MRPC_VERSION
#define MRPC_VERSION "1" /* of the protocol's extensions: -tvmrpc=1 */
#endif

#define CHECK_S 10
enum { MOST_SAID = 4096 };

mrpc_config mrpc_settings = {
    .host = "127.0.0.1",
    .key = "",
    .port = 9090,
    .port_end = 9199,
    .output_nbytes = 1 << 20,
    .idle_s = 3600,
    .handshake_s = 5,
    .goodbye_s = 1,
    .stop_s = 0.5,
    .send_s = 60,
    .ready_fd = -1,
    .parent_fd = -1,
    .listen_fd = -1,
};

typedef enum { SWITCH, TEXT, NUMBER, SECONDS } kind;

typedef struct {
  const char *name, *metavar, *help; /* help NULL: for ourselves */
  kind kind;
  void *setting;
} option;

static const option options[] = {
    {"host", "HOST", "the address to listen on (default: 127.0.0.1, this machine only)", TEXT,
     &mrpc_settings.host},
    {"port", "PORT", "the first port to try; 0: any that is free (default: 9090)", NUMBER,
     &mrpc_settings.port},
    {"port-end", "PORT", "the port behind the last one to try (default: 9199)", NUMBER,
     &mrpc_settings.port_end},
    {"tracker", "HOST:PORT", "the tracker to offer the device to", TEXT, &mrpc_settings.tracker},
    {"key", "KEY", "what kind of device this is, e.g. jetson", TEXT, &mrpc_settings.key},
    {"custom-addr", "HOST", "the address that the tracker gives to clients, if not the one it sees",
     TEXT, &mrpc_settings.custom_addr},
    {"through-proxy", NULL,
     "--host and --port are a proxy's: wait there for clients, and listen on nothing", SWITCH,
     &mrpc_settings.is_proxy},
    {"work-dir", "DIR", "where sessions have their directories (default: $TMPDIR, or /tmp)", TEXT,
     &mrpc_settings.work_dir},
    {"load-library", "PATHS", "shared libraries that every session has; with colons between them",
     TEXT, &mrpc_settings.libraries},
    {"idle-timeout", "SECONDS", "how long a client may ask nothing (default: 3600; 0: for ever)",
     SECONDS, &mrpc_settings.idle_s},
    {"timeout", "SECONDS", "end when no client has come for so long (default: never)", SECONDS,
     &mrpc_settings.unused_s},
    {"handshake-timeout", "SECONDS", "how long a client may take for its first words (default: 5)",
     SECONDS, &mrpc_settings.handshake_s},
    {"send-timeout", "SECONDS", "how long it may refuse to take an answer (default: 60)", SECONDS,
     &mrpc_settings.send_s},
    {"output-limit", "BYTES", "how much is shown of what a session prints (default: 1048576)",
     NUMBER, &mrpc_settings.output_nbytes},
    {"silent", NULL, "print errors only", SWITCH, &mrpc_settings.is_silent},
    {"no-reuse-addr", NULL, NULL, SWITCH, &mrpc_settings.no_reuse_addr},
    {"ready-fd", NULL, NULL, NUMBER, &mrpc_settings.ready_fd},
    {"parent-fd", NULL, NULL, NUMBER, &mrpc_settings.parent_fd},
    {"listen-fd", NULL, NULL, NUMBER, &mrpc_settings.listen_fd},
};

enum { OPTIONS = sizeof options / sizeof *options };

static void help(void) {
  printf("usage: tvmrpc-server [--option VALUE | --option=VALUE]...\n\n"
         "Serves this machine to clients of TVM's RPC, one session after the other, each in a\n"
         "process and a directory of its own.\n\n");
  for (int at = 0; at < OPTIONS; at++) {
    const option *one = &options[at];
    char left[40];
    if (!one->help) continue;
    snprintf(left, sizeof left, "--%s %s", one->name, one->metavar ? one->metavar : "");
    printf("  %-27s %s\n", left, one->help);
  }
  printf("  %-27s %s\n  %-27s %s\n", "--version", "show the version", "--help", "show this");
  printf("\nWhoever reaches the port can run code on this machine. A board that belongs to a farm:\n"
         "  tvmrpc-server --host 0.0.0.0 --tracker FARM:9190 --key jetson\n"
         "and then, where the tests are:\n"
         "  remote = rpc.connect_tracker(\"FARM\", 9190).request(\"jetson\")\n");
}

static void say(char *line, size_t nbytes) {
  int fd = (int)mrpc_settings.ready_fd;
  mrpc_settings.ready_fd = -1;
  if (fd < 0) return;
  line[nbytes++] = '\n';
  if (write(fd, line, nbytes) < 0) errno = 0; /* the parent no longer waits */
  close(fd);
}

void mrpc_announce(int64_t port) {
  char line[64];
  say(line, (size_t)snprintf(line, sizeof line - 1, "{\"port\": %d}", (int)port));
}

/* Says on stderr, and to the parent if there is one waiting, why this server does not start. */
static int refuse(int status, const char *why) {
  char line[2048];
  size_t nbytes = (size_t)snprintf(line, sizeof line, "{\"error\": ");
  fprintf(stderr, "error: %s\n", why);
  nbytes += mrpc_json_quote(line + nbytes, sizeof line - 4 - nbytes, why);
  line[nbytes++] = '}';
  say(line, nbytes);
  return status;
}

static int set_number(const option *one, const char *text, char *why) {
  char *end;
  if (one->kind == NUMBER) {
    long long number = strtoll(text, &end, 10);
    if (*text && !*end && number >= 0 && number < INT64_C(1) << 40) {
      *(int64_t *)one->setting = number;
      return 0;
    }
  } else {
    double seconds = strtod(text, &end);
    if (*text && !*end && seconds >= 0 && seconds < HUGE_VAL) {
      *(double *)one->setting = seconds;
      return 0;
    }
  }
  snprintf(why, MRPC_WHY, "--%s %.60s: expected %s", one->name, text,
           one->kind == NUMBER ? "a number" : "seconds; 0 is for no limit");
  return -1;
}

/* Reads one option; how many words it took, or -1. */
static int read_option(int left, char **words, char *why) {
  const char *name = words[0] + 2, *value = strchr(name, '=');
  size_t length = value ? (size_t)(value - name) : strlen(name);
  if (strncmp(words[0], "--", 2) != 0 || !length) {
    snprintf(why, MRPC_WHY, "%.60s is no option; see --help", words[0]);
    return -1;
  }
  for (int at = 0; at < OPTIONS; at++) {
    const option *one = &options[at];
    int taken = value ? 1 : 2;
    if (strlen(one->name) != length || strncmp(one->name, name, length) != 0) continue;
    if (one->kind == SWITCH) {
      if (value) break;
      *(int *)one->setting = 1;
      return 1;
    }
    if (taken > left) {
      snprintf(why, MRPC_WHY, "--%s expects a value", one->name);
      return -1;
    }
    value = value ? value + 1 : words[1];
    if (one->kind == TEXT)
      *(const char **)one->setting = value;
    else if (set_number(one, value, why))
      return -1;
    return taken;
  }
  snprintf(why, MRPC_WHY, "there is no option %.60s; see --help", words[0]);
  return -1;
}

/* What keeps a key from being a single word that others can read; NULL if all is well. */
static const char *wrong_with_key(const char *key) {
  if (strlen(key) > 256) return "is longer than the 256 bytes a key may have";
  for (; *key; key++)
    if ((uint8_t)*key <= ' ' || *key == 0x7F) return "has a blank in it; keys are single words";
  return NULL;
}

static int split_tracker(char *why) {
  mrpc_config *given = &mrpc_settings;
  char *colon = strrchr(given->tracker, ':'), *end = NULL;
  size_t length;
  if (colon) given->tracker_port = strtol(colon + 1, &end, 10);
  if (!colon || !colon[1] || *end || given->tracker_port < 1 || given->tracker_port > 65535 ||
      (memchr(given->tracker, ':', (size_t)(colon - given->tracker)) && colon[-1] != ']')) {
    snprintf(why, MRPC_WHY,
             "--tracker %.60s is no address; expected HOST:PORT, for example 127.0.0.1:9190",
             given->tracker);
    return -1;
  }
  *colon = 0;
  length = strlen(given->tracker);
  if (*given->tracker == '[' && given->tracker[length - 1] == ']') {
    given->tracker[length - 1] = 0;
    given->tracker++;
  }
  if (!*given->tracker) given->tracker = strdup("127.0.0.1");
  return given->tracker ? 0 : -1;
}

/* Refuses settings that cannot work. */
static int check(char *why) {
  mrpc_config *given = &mrpc_settings;
  const char *wrong = wrong_with_key(given->key);
  *why = 0;
  if (given->tracker && !*given->tracker) given->tracker = NULL;
  if (given->tracker && split_tracker(why)) return -1;
  if (given->tracker && !*given->key)
    strcpy(why, "Need key to present type of resource when tracker is available; give one, for "
                "example --key jetson");
  else if (wrong)
    snprintf(why, MRPC_WHY, "the key '%.80s' %s", given->key, wrong);
  else if (given->port > 65535)
    snprintf(why, MRPC_WHY, "port %lld is none; give 1 to 65535, or 0 for any free port",
             (long long)given->port);
  else if (given->is_proxy && (!*given->key || !given->port))
    strcpy(why, "a server that waits at a proxy needs the proxy's port and a key of its own; give "
                "them, for example --port 9091 --key jetson");
  else if (given->custom_addr && strlen(given->custom_addr) > 255)
    strcpy(why, "--custom-addr is longer than the 255 bytes that an address may have");
  return *why ? -1 : 0;
}

/* Paths that hold in every working directory. A name that is no file here is left to the system's
 * loader, which has its own folders. */
static int make_absolute(char *why) {
  char *given = mrpc_settings.libraries, *all = calloc(1, 1), *name;
  for (name = given ? strtok(given, ":") : NULL; all && name; name = strtok(NULL, ":")) {
    char real[PATH_MAX], *longer;
    const char *path = realpath(name, real) ? real : name;
    size_t nbytes = strlen(all);
    if (path == name && strchr(name, '/')) {
      snprintf(why, MRPC_WHY, "the library %.150s cannot be loaded: %s", name, strerror(errno));
      free(all);
      return -1;
    }
    longer = realloc(all, nbytes + strlen(path) + 2);
    if (!longer) free(all);
    all = longer;
    if (!all) break;
    if (nbytes) strcat(all, ":");
    strcat(all, path);
  }
  if (all && !*all) {
    free(all);
    all = NULL;
  }
  mrpc_settings.libraries = all;
  return 0;
}

static void load_and_tell(int fd) {
  char *error;
  size_t nbytes;
  alarm(CHECK_S + 1); /* also when nobody is left to end it */
  if (!mrpc_load_libraries(mrpc_settings.libraries)) _exit(write(fd, "+", 1) != 1);
  error = mrpc_take_error(&nbytes);
  _exit(write(fd, error, nbytes < MOST_SAID ? nbytes : MOST_SAID) < 0);
}

/* Tries to load the libraries, in a process of its own, so that this one does not keep them. */
static int check_libraries(char *why, size_t room) {
  int both[2], status;
  struct pollfd polled;
  ssize_t got = 0;
  pid_t pid;
  if (pipe2(both, O_CLOEXEC)) return -1;
  pid = fork();
  if (pid == 0) load_and_tell(both[1]);
  close(both[1]);
  polled.fd = both[0];
  polled.events = POLLIN;
  *why = 0;
  if (pid > 0 && poll(&polled, 1, CHECK_S * 1000) == 1) got = read(both[0], why, room - 1);
  close(both[0]);
  if (pid > 0) {
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
  }
  why[got > 0 ? got : 0] = 0;
  if (!strcmp(why, "+")) return 0;
  if (!*why)
    snprintf(why, room,
             "%.150s: the process that tried to load this ended, or did not return in time",
             mrpc_settings.libraries);
  return -1;
}

/* What can be known before the first client comes, is found out now. */
static int prepare(char *why, size_t room) {
  char reason[MRPC_WHY];
  int found = mrpc_directory_check(reason);
  if (found < 0) {
    snprintf(why, room,
             "there is no place for the directories of sessions: %s; set TMPDIR or --work-dir to a "
             "folder that can be written",
             reason);
    return -1;
  }
  if (found) mrpc_warn("%s", reason);
  if (make_absolute(why)) return -1;
  return mrpc_settings.libraries ? check_libraries(why, room) : 0;
}

/* A daemon may have none of them open: a session would write to whatever got the number. */
static void open_standard_streams(void) {
  for (int fd = 0; fd < 3; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0) return;
}

static int is_loopback(const char *address) {
  return !strncmp(address, "127.", 4) || !strncmp(address, "[::1]:", 6);
}

/* Prints the address as TVM does, and a warning if others reach it; the port. */
static int64_t print_address(int listener) {
  struct sockaddr_storage address;
  socklen_t nbytes = sizeof address;
  char text[MRPC_ADDRESS];
  memset(&address, 0, sizeof address);
  getsockname(listener, (struct sockaddr *)&address, &nbytes);
  mrpc_address_text(text, (struct sockaddr *)&address);
  if (!mrpc_settings.is_silent) mrpc_print(1, "bind to %s", text);
  if (!is_loopback(text))
    mrpc_print(2, "warning: whoever reaches this port can run code on this machine; do this only in "
                  "a network in which everybody is trusted");
  return strtol(strrchr(text, ':') + 1, NULL, 10);
}

static int read_options(int count, char **words, char *why) {
  for (int at = 1; at < count;) {
    int taken;
    if (!strcmp(words[at], "--help") || !strcmp(words[at], "-h")) {
      help();
      return 1;
    }
    if (!strcmp(words[at], "--version")) {
      printf("tvmrpc-server %s, protocol %s\n", MRPC_VERSION, MRPC_PROTOCOL_VERSION);
      return 1;
    }
    taken = read_option(count - at, words + at, why);
    if (taken < 0) return -1;
    at += taken;
  }
  return check(why);
}

int main(int count, char **words) {
  char why[1024] = "";
  int64_t *inherited[] = {&mrpc_settings.ready_fd, &mrpc_settings.parent_fd,
                          &mrpc_settings.listen_fd};
  int listener = -1, found;
  open_standard_streams();
  found = read_options(count, words, why);
  if (found > 0) return 0;
  for (int at = 0; at < 3; at++)
    if (*inherited[at] >= 0) mrpc_set_cloexec((int)*inherited[at]);
  if (found < 0) return refuse(2, why);
  if (prepare(why, sizeof why)) return refuse(1, why);
  if (mrpc_settings.is_proxy) {
    char text[MRPC_PATH];
    mrpc_host_text(text, sizeof text, mrpc_settings.host, mrpc_settings.port);
    mrpc_report("waiting at the proxy %s", text);
    return mrpc_supervise(-1, mrpc_settings.port);
  }
  listener = mrpc_settings.listen_fd >= 0 ? (int)mrpc_settings.listen_fd : mrpc_listen(why);
  if (listener < 0) return refuse(1, why);
  mrpc_set_nonblocking(listener, 1);
  mrpc_settings.port = print_address(listener);
  return mrpc_supervise(listener, mrpc_settings.port);
}
