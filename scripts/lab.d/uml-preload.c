/*
 * Preloaded into User Mode Linux, this library stands between it and ptrace(2) and clone(2).
 *
 * 1. UML 6.1 sets the vector registers of its processes (NT_X86_XSTATE) from an
 *    image as long as the CPUs it knew. A host whose XSAVE area is longer, as
 *    with AMX, refuses the short image with EFAULT, and UML dies at its first
 *    process. Here the image is made as long as the host wants it: what UML did
 *    not give is zero, and marked as being in its initial state.
 * 2. UML's processes are processes of the host, held by UML's ptrace. Were UML
 *    killed, they would run on, and their system calls would reach the host.
 *    Here they die with it (PTRACE_O_EXITKILL), it dies with its parent, and
 *    its helper threads, which are processes too, die with it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <unistd.h>

typedef long ptrace_fn(enum __ptrace_request, ...);
typedef int clone_fn(int (*)(void *), void *, int, void *, ...);

/* UML speaks the old number, which the C library's header no longer names. */
enum { PTRACE_OLDSETOPTIONS = 21 };

static ptrace_fn *real_ptrace;
static clone_fn *real_clone;

__attribute__((constructor)) static void start(void)
{
	real_ptrace = (ptrace_fn *)dlsym(RTLD_NEXT, "ptrace");
	real_clone = (clone_fn *)dlsym(RTLD_NEXT, "clone");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* What a helper thread was to run, kept at the top of its own stack. */
struct helper {
	int (*run)(void *);
	void *argument;
};

static int run_helper(void *at)
{
	struct helper *helper = at;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return helper->run(helper->argument);
}

int clone(int (*run)(void *), void *stack, int flags, void *argument, ...)
{
	if (!(flags & CLONE_VM))
		return real_clone(run, stack, flags, argument);
	struct helper *helper = (struct helper *)(((uintptr_t)stack - sizeof *helper) & ~(uintptr_t)63);
	*helper = (struct helper){ run, argument };
	return real_clone(run_helper, helper, flags, helper);
}

#ifdef __x86_64__
#include <cpuid.h>

/* XSAVE area, standard format: 512 bytes of legacy state, a header whose first word is XSTATE_BV. */
enum { XSTATE_BV_OFFSET = 512, XSTATE_MIN = 576, XSTATE_MAX = 64 * 1024 };

/* The state components that lie wholly within the first `length` bytes of the area. */
static uint64_t components_within(size_t length)
{
	static _Thread_local size_t length_asked;
	static _Thread_local uint64_t within;

	if (length == length_asked)
		return within;
	length_asked = length;
	within = 0x3; /* x87 and SSE: the legacy state */
	for (unsigned bit = 2; bit < 63; bit++) {
		unsigned size, offset, ecx, edx;
		if (__get_cpuid_count(0xd, bit, &size, &offset, &ecx, &edx) && size != 0
		    && (size_t)offset + size <= length)
			within |= UINT64_C(1) << bit;
	}
	return within;
}

static long set_xstate(pid_t pid, void *addr, const struct iovec *given)
{
	static _Thread_local _Alignas(64) unsigned char image[XSTATE_MAX];
	static _Thread_local size_t host_length; /* the same for every process of this boot */
	struct iovec whole = { image, sizeof image };

	if (host_length == 0 && real_ptrace(PTRACE_GETREGSET, pid, addr, &whole) == 0)
		host_length = whole.iov_len;
	if (given->iov_len < XSTATE_MIN || host_length <= given->iov_len)
		return real_ptrace(PTRACE_SETREGSET, pid, addr, given);

	uint64_t present;
	whole.iov_len = host_length;
	memset(image, 0, host_length);
	memcpy(image, given->iov_base, given->iov_len);
	memcpy(&present, image + XSTATE_BV_OFFSET, sizeof present);
	present &= components_within(given->iov_len);
	memcpy(image + XSTATE_BV_OFFSET, &present, sizeof present);
	return real_ptrace(PTRACE_SETREGSET, pid, addr, &whole);
}
#endif

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	pid_t pid = va_arg(arguments, pid_t);
	void *addr = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);

#ifdef __x86_64__
	if (request == PTRACE_SETREGSET && (uintptr_t)addr == NT_X86_XSTATE)
		return set_xstate(pid, addr, data);
#endif
	if (request == PTRACE_SETOPTIONS || (int)request == PTRACE_OLDSETOPTIONS)
		data = (void *)((uintptr_t)data | PTRACE_O_EXITKILL);
	return real_ptrace(request, pid, addr, data);
}
