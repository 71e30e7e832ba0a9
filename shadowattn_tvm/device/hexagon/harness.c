/* A freestanding program for qemu-hexagon that calls compiled graphs on request.
 *
 * Request (little endian, on standard input):
 *   u32 entry, u32 count, then `count` times u32 bytes and u32 is_output; then the inputs' bytes.
 * Answer (on standard output):
 *   i32 result, u32 packets, u32 instructions, u32 HVX instructions; then the outputs' bytes.
 * The result is what the graph returned, or one of the codes below. It ends with its input.
 *
 * `entries` and `num_entries` are linked in; see emulator.py. */
typedef unsigned int u32;
typedef unsigned char u8;
typedef __SIZE_TYPE__ size_t;
typedef int (*graph)(void *, void *, void *, void *, void *, void *, void *, void *);

extern graph const entries[];
extern u32 const num_entries;

enum { MAX_BUFFERS = 8, ALIGNMENT = 128, GUARD = 256, ARENA = 96 << 20 };
enum { BAD_REQUEST = -1, WROTE_OUTSIDE = -2 };
enum { SYS_READ = 63, SYS_WRITE = 64, SYS_EXIT = 93 };
enum { STALE = 0x5a, GUARDED = 0xa5 };

static u8 arena[ARENA] __attribute__((aligned(ALIGNMENT)));

static long system_call(long number, long a, long b, long c) {
  register long r0 __asm__("r0") = a;
  register long r1 __asm__("r1") = b;
  register long r2 __asm__("r2") = c;
  register long r6 __asm__("r6") = number;
  __asm__ volatile("trap0(#1)" : "+r"(r0) : "r"(r1), "r"(r2), "r"(r6) : "memory");
  return r0;
}

/* What compilers may call without being told to. */
void *memcpy(void *to, const void *from, size_t n) {
  u8 *d = to;
  const u8 *s = from;
  while (n--) *d++ = *s++;
  return to;
}
void *memset(void *to, int value, size_t n) {
  u8 *d = to;
  while (n--) *d++ = (u8)value;
  return to;
}

static void finish(int status) { system_call(SYS_EXIT, status, 0, 0); }

static void read_all(void *to, u32 bytes, int may_end) {
  u8 *p = to;
  for (u32 left = bytes; left;) {
    long got = system_call(SYS_READ, 0, (long)p, left);
    if (got <= 0) finish(may_end && left == bytes ? 0 : 3);
    p += got;
    left -= got;
  }
}

static void write_all(const void *from, u32 bytes) {
  const u8 *p = from;
  while (bytes) {
    long put = system_call(SYS_WRITE, 1, (long)p, bytes);
    if (put <= 0) finish(4);
    p += put;
    bytes -= put;
  }
}

/* QEMU's own control registers c20, c21 and c22, which assemblers don't know: r0 = cN. */
#define READ_COUNTER(value, word) __asm__ volatile(".word " word "\n\t%0 = r0" : "=r"(value) : : "r0")
static void read_counters(u32 *c) {
  READ_COUNTER(c[0], "0x6a14c000");
  READ_COUNTER(c[1], "0x6a15c000");
  READ_COUNTER(c[2], "0x6a16c000");
}

static int intact(const u8 *guard) {
  for (u32 i = 0; i < GUARD; ++i)
    if (guard[i] != GUARDED) return 0;
  return 1;
}

static void serve(void) {
  u32 head[2], sizes[MAX_BUFFERS][2], before[3], after[3];
  u8 *buffers[MAX_BUFFERS] = {0};
  struct { int result; u32 counters[3]; } answer;
  read_all(head, sizeof head, 1);
  if (head[0] >= num_entries || head[1] > MAX_BUFFERS) finish(2);
  read_all(sizes, sizeof sizes[0] * head[1], 0);
  u32 used = GUARD;
  memset(arena, GUARDED, GUARD);
  for (u32 i = 0; i < head[1]; ++i) {
    u32 bytes = sizes[i][0], padded = (bytes + ALIGNMENT - 1) & -ALIGNMENT;
    if (bytes > ARENA || used + padded + GUARD > ARENA) finish(2);
    buffers[i] = arena + used;
    if (sizes[i][1]) memset(buffers[i], STALE, bytes);
    else read_all(buffers[i], bytes, 0);
    memset(buffers[i] + bytes, GUARDED, padded - bytes + GUARD);
    used += padded + GUARD;
  }
  u8 **b = buffers;
  read_counters(before);
  answer.result = entries[head[0]](b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]);
  read_counters(after);
  for (int i = 0; i < 3; ++i) answer.counters[i] = after[i] - before[i];
  for (u32 i = 0; i < head[1]; ++i)
    if (!intact(b[i] - GUARD) || !intact(b[i] + sizes[i][0])) answer.result = WROTE_OUTSIDE;
  write_all(&answer, sizeof answer);
  for (u32 i = 0; i < head[1]; ++i)
    if (sizes[i][1]) write_all(b[i], sizes[i][0]);
}

void run(void) {
  for (;;) serve();
}
__asm__(".globl _start\n_start:\n  { r29 = and(r29, #-256) }\n  { call run }\n");
