/* A QEMU plugin that counts the instructions a guest executes in shared libraries below a folder.
 *
 * Arguments: folder=PATH (of the libraries), out=FILE (of the counters, mapped by the reader too).
 * Counting is done by instructions QEMU puts in front of each translated block, so counts are exact
 * and repeatable; with several guest threads updates may be lost.
 *
 * QEMU's plugin interface is declared here: its header comes with QEMU's sources only.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { ADD = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_syscall_ret_cb(
    plugin_id, void (*)(plugin_id, unsigned int, int64_t, int64_t));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);

int qemu_plugin_version = 1;

/* The order is that of `counts.py`. */
enum { ALL, LOAD_STORE, VECTOR, BRANCH, INT8_DOT, INT8_MATRIX, MULTIPLY_ADD, NUM_COUNTERS };

static uint64_t *counters;
static char folder[1024];

/* Host addresses of the libraries, read anew after the guest has changed its mappings. */
enum { MAX_RANGES = 1024, GUEST_MUNMAP = 215, GUEST_MREMAP = 216, GUEST_MMAP = 222 };
static uintptr_t ranges[MAX_RANGES][2];
static int num_ranges;
static int stale = 1;

static void read_ranges(void) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[2048];
  num_ranges = stale = 0;
  if (maps == NULL) return;
  while (num_ranges < MAX_RANGES && fgets(line, sizeof line, maps)) {
    unsigned long start, end;
    if (strstr(line, folder) && sscanf(line, "%lx-%lx", &start, &end) == 2) {
      ranges[num_ranges][0] = start;
      ranges[num_ranges++][1] = end;
    }
  }
  fclose(maps);
}

static int counted(uintptr_t address) {
  if (stale) read_ranges();
  for (int i = 0; i < num_ranges; i++)
    if (ranges[i][0] <= address && address < ranges[i][1]) return 1;
  return 0;
}

static void called(plugin_id id, unsigned int vcpu, int64_t number, int64_t result) {
  (void)id, (void)vcpu, (void)result;
  if (number == GUEST_MMAP || number == GUEST_MUNMAP || number == GUEST_MREMAP) stale = 1;
}

/* Arm Architecture Reference Manual, C4.1: A64 instruction set encoding. */
static void classify(uint32_t word, uint64_t *counts) {
  uint32_t op0 = (word >> 25) & 15;
  counts[ALL]++;
  if ((op0 & 5) == 4) counts[LOAD_STORE]++;
  if ((op0 & 14) == 10) counts[BRANCH]++;
  if ((op0 & 7) != 7) return;
  counts[VECTOR]++;
  if ((word & 0x9fe0fc00) == 0x0e809400 || (word & 0x9fc0f400) == 0x0f80e000)
    counts[INT8_DOT]++; /* SDOT, UDOT: of vectors, by element */
  if ((word & 0xdfe0fc00) == 0x4e80a400) counts[INT8_MATRIX]++; /* SMMLA, UMMLA */
  if ((word & 0xbfa0fc00) == 0x0e20cc00 || (word & 0xbf80f400) == 0x0f801000)
    counts[MULTIPLY_ADD]++; /* FMLA of 32 or 64 bits: of vectors, by element */
}

static void translated(plugin_id id, struct qemu_plugin_tb *block) {
  size_t length = qemu_plugin_tb_n_insns(block);
  uint64_t counts[NUM_COUNTERS] = {0};
  (void)id;
  if (!counted((uintptr_t)qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(block, 0)))) return;
  for (size_t i = 0; i < length; i++) {
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
    classify(word, counts);
  }
  for (int i = 0; i < NUM_COUNTERS; i++)
    if (counts[i]) qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &counters[i], counts[i]);
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  size_t size = NUM_COUNTERS * sizeof *counters;
  int file = -1;
  (void)info;
  for (int i = 0; i < argc; i++) {
    if (!strncmp(argv[i], "folder=", 7)) snprintf(folder, sizeof folder, "%s", argv[i] + 7);
    if (!strncmp(argv[i], "out=", 4)) file = open(argv[i] + 4, O_RDWR);
  }
  if (file < 0 || folder[0] == 0 || ftruncate(file, (off_t)size)) return -1;
  counters = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (counters == MAP_FAILED) return -1;
  qemu_plugin_register_vcpu_syscall_ret_cb(id, called);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  return 0;
}
