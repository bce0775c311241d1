/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * The nexus tap: notes, for every command that the kernel puts on a ring of TCMU, which session it belongs to.
 *
 * The ring's entries do not say who sent a command. The function that writes them, queue_cmd_ring() in
 * drivers/target/target_core_user.c, knows: the session is in the command, and the id by which user space
 * answers it is drawn there. It runs under a mutex of the device, always, and these programs in it:
 *
 *   on its entry               the session is known, the id is not: who it is, is worked out and set aside
 *   ring_insert_padding()      called in between, with the id drawn and the entry not yet visible: the note is made
 *   on its return              the entry is visible; if the note was not made before (a kernel whose compiler has
 *                              dissolved ring_insert_padding), it is made now
 *
 * User space maps the arrays `notes` and `sessions` and reads them without asking the kernel. It takes a note for
 * good only if its number is the one that follows the number of the command before it on the same ring. So a
 * command for which these programs did not run has no note, and is never taken for another's.
 *
 * When the administrator has the ring emptied, that is counted: notes of commands that were on it are void.
 *
 * A session is told by its address in the kernel, and when it is registered or deregistered, whatever is known
 * of that address is forgotten.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;
typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef s32 __s32;
typedef s64 __s64;
typedef u16 __be16;
typedef u32 __be32;
typedef u64 __be64;
typedef u32 __wsum;
typedef u8 bool;

/* Of linux/bpf.h, which has no place among headers for the host. */
enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_QUEUE = 22, BPF_MAP_TYPE_RINGBUF = 27 };
enum { BPF_NOEXIST = 1, BPF_F_MMAPABLE = 1 << 10 };

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

enum dma_data_direction { DMA_TO_DEVICE = 1 };

/* What is read of the kernel's structures. Offsets are those of the kernel that loads this. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct hlist_node {
	struct hlist_node *next;
};
struct hlist_head {
	struct hlist_node *first;
};
struct config_item {
	char *ci_name;
};
struct config_group {
	struct config_item cg_item;
};
struct target_fabric_configfs {
	struct config_group tf_group;
};
struct se_wwn {
	struct target_fabric_configfs *wwn_tf;
	struct config_group wwn_group;
};
struct se_portal_group {
	struct se_wwn *se_tpg_wwn;
	struct config_group tpg_group;
};
struct se_node_acl {
	char initiatorname[224];
	struct hlist_head lun_entry_hlist;
};
struct se_dev_entry {
	u64 mapped_lun;
	bool lun_access_ro;
	struct hlist_node link;
};
struct se_session {
	struct se_node_acl *se_node_acl;
	struct se_portal_group *se_tpg;
	void *fabric_sess_ptr;
};
struct se_cmd {
	u64 orig_fe_lun;
	enum dma_data_direction data_direction;
	struct se_session *se_sess;
};
struct uio_device {
	int minor;
};
struct uio_info {
	struct uio_device *uio_dev;
};
struct se_device {
	struct config_group dev_action_group;
};
struct tcmu_dev {
	struct se_device se_dev;
	struct uio_info uio_info;
};
struct tcmu_cmd {
	struct se_cmd *se_cmd;
	struct tcmu_dev *tcmu_dev;
	u16 cmd_id;
};
/* Of the iSCSI target, whose module may be missing. */
struct iscsit_session {
	u8 isid[6];
};
#pragma clang attribute pop

/* How much there is room for. User space learns it from the maps. */
enum {
	DEVICES = 256,   /* by the minor number of their UIO device */
	COMMANDS = 8192, /* by id; the kernel draws the lowest that is free */
	SESSIONS = 4096, /* by slot; slot 0 is nobody's */
	LUNS = 256,      /* of one initiator, that are searched */
};

/* A note, in one word so that it is never seen half written: which session, and how many notes were made before it
 * for the same device.
 *
 *   bits 0-31   number
 *   bits 32-43  slot of the session; 0: it could not be made out
 *   bits 44-59  generation of the slot
 *   bit 60      the session's LUN is mapped read-only
 */
enum { SLOT_SHIFT = 32, GENERATION_SHIFT = 44, READ_ONLY_SHIFT = 60 };
enum { GENERATION_MASK = 0xffff };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, DEVICES * COMMANDS);
	__type(key, u32);
	__type(value, u64);
} notes SEC(".maps");

struct device {
	u32 number;  /* of the last note */
	u32 resets;  /* how often the ring was emptied: what was noted before counts no more */
	u64 command; /* the struct tcmu_cmd that is being queued and has no note yet, else 0 */
	u64 note;    /* its note, without the number */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, DEVICES);
	__type(key, u32);
	__type(value, struct device);
} devices SEC(".maps");

/* Who a session is. Written before its slot's generation appears in any note, and not changed until the
 * generation has. Texts end with a 0, or were too long. */
struct session {
	u32 generation;
	u8 has_isid;
	u8 isid[6];
	u8 unused;
	char fabric[32];
	char target[256];
	char group[28];
	char initiator[256];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SESSIONS);
	__type(key, u32);
	__type(value, struct session);
} sessions SEC(".maps");

/* What a session's address stands for. An address can come back for another session. */
struct known {
	u64 acl;
	u64 group;
	u64 of_fabric;
	u32 slot;
	u32 generation;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SESSIONS);
	__type(key, u64);
	__type(value, struct known);
} known SEC(".maps");

/* The slots that are free. User space puts all of them in. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, SESSIONS);
	__type(value, u32);
} slots SEC(".maps");

/* Wakes user space when a session has ended. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} ended SEC(".maps");

/* Faults, for tests; 0 in earnest. */
const volatile u32 fault_late;  /* make notes on return only, this many steps of a loop later: 0 is never */
const volatile u32 fault_every; /* leave out every so manieth note: 0 is none */

static __always_inline void release(u32 slot)
{
	struct session *session = bpf_map_lookup_elem(&sessions, &slot);

	if (!session)
		return;
	/* From here on no note of the slot is valid. */
	__sync_fetch_and_add(&session->generation, 1);
	bpf_map_push_elem(&slots, &slot, 0);
}

static __always_inline void forget(struct se_session *se_session)
{
	u64 address = (u64)se_session;
	struct known *was = bpf_map_lookup_elem(&known, &address);
	u32 slot;

	if (!was)
		return;
	slot = was->slot;
	/* Whoever deletes it releases the slot. */
	if (bpf_map_delete_elem(&known, &address))
		return;
	release(slot);
	bpf_ringbuf_output(&ended, &slot, sizeof slot, 0);
}

static __always_inline bool is_iscsi(const char *fabric)
{
	return fabric[0] == 'i' && fabric[1] == 's' && fabric[2] == 'c' && fabric[3] == 's' && fabric[4] == 'i' &&
	       fabric[5] == 0;
}

/* Makes a session known, which it was not: its slot and generation go to `now`. */
static __always_inline bool learn(struct se_session *se_session, struct known *now)
{
	u64 address = (u64)se_session;
	struct se_portal_group *group = se_session->se_tpg;
	struct se_wwn *target = BPF_CORE_READ(group, se_tpg_wwn);
	struct session *session;

	if (bpf_map_pop_elem(&slots, &now->slot))
		return 0;
	session = bpf_map_lookup_elem(&sessions, &now->slot);
	if (!session)
		return 0;
	__builtin_memset(session->fabric, 0, sizeof session->fabric);
	__builtin_memset(session->isid, 0, sizeof session->isid);
	session->target[0] = session->group[0] = session->initiator[0] = 0;
	/* The kernel's own groups, which copy between disks, belong to no target. */
	if (target) {
		char *name = BPF_CORE_READ(target, wwn_tf, tf_group.cg_item.ci_name);

		bpf_probe_read_kernel_str(session->fabric, sizeof session->fabric, name);
		name = BPF_CORE_READ(target, wwn_group.cg_item.ci_name);
		bpf_probe_read_kernel_str(session->target, sizeof session->target, name);
		name = BPF_CORE_READ(group, tpg_group.cg_item.ci_name);
		bpf_probe_read_kernel_str(session->group, sizeof session->group, name);
	}
	BPF_CORE_READ_STR_INTO(&session->initiator, se_session, se_node_acl, initiatorname);
	session->has_isid = 0;
	if (is_iscsi(session->fabric) && bpf_core_field_exists(struct iscsit_session, isid)) {
		struct iscsit_session *of_fabric = (void *)now->of_fabric;

		if (!bpf_core_read(session->isid, sizeof session->isid, &of_fabric->isid))
			session->has_isid = 1;
	}
	/* A barrier: who sees the generation in a note sees all this. */
	now->generation = __sync_fetch_and_add(&session->generation, 0);
	/* Another CPU may have been faster; then this slot was not needed. */
	if (bpf_map_update_elem(&known, &address, now, BPF_NOEXIST)) {
		struct known *other = bpf_map_lookup_elem(&known, &address);

		release(now->slot);
		if (!other)
			return 0;
		now->slot = other->slot;
		now->generation = other->generation;
	}
	return 1;
}

/* Whether an initiator may not write to its LUN of that number: 1 or 0, or -1 if that could not be made out. */
static __always_inline int is_read_only(struct se_node_acl *acl, u64 lun)
{
	struct hlist_node *node = acl->lun_entry_hlist.first;

	for (int i = 0; i < LUNS && node; i++) {
		struct se_dev_entry *entry = (void *)node - bpf_core_field_offset(struct se_dev_entry, link);

		if (BPF_CORE_READ(entry, mapped_lun) == lun)
			return BPF_CORE_READ(entry, lun_access_ro) != 0;
		node = BPF_CORE_READ(node, next);
	}
	return -1;
}

/* The note of a command, without its number; 0 if it can't be made out whose it is. */
static __always_inline u64 identify(struct se_cmd *command)
{
	struct se_session *se_session = command->se_sess;
	u64 address = (u64)se_session;
	struct known now = {}, *was;
	int read_only = 0;

	if (!se_session || !se_session->se_node_acl)
		return 0;
	now.acl = (u64)se_session->se_node_acl;
	now.group = (u64)se_session->se_tpg;
	now.of_fabric = (u64)se_session->fabric_sess_ptr;
	was = bpf_map_lookup_elem(&known, &address);
	if (was && was->acl == now.acl && was->group == now.group && was->of_fabric == now.of_fabric) {
		now.slot = was->slot;
		now.generation = was->generation;
	} else {
		forget(se_session);
		if (!learn(se_session, &now))
			return 0;
	}
	/* What sends data the kernel has let through only if it may write. */
	if (command->data_direction != DMA_TO_DEVICE)
		read_only = is_read_only(se_session->se_node_acl, command->orig_fe_lun);
	if (read_only < 0)
		return 0;
	return (u64)now.slot << SLOT_SHIFT | (u64)(now.generation & GENERATION_MASK) << GENERATION_SHIFT |
	       (u64)read_only << READ_ONLY_SHIFT;
}

static __always_inline struct device *device_of(struct tcmu_dev *udev, u32 *minor)
{
	*minor = udev->uio_info.uio_dev->minor;
	return bpf_map_lookup_elem(&devices, minor);
}

static __always_inline void write_note(struct device *device, u32 minor, u16 id)
{
	u32 index = minor * COMMANDS + id;
	u64 *note;

	device->command = 0;
	if (id >= COMMANDS)
		return;
	note = bpf_map_lookup_elem(&notes, &index);
	if (!note)
		return;
	if (fault_every && bpf_get_prandom_u32() % fault_every == 0)
		return;
	device->number++;
	*(volatile u64 *)note = device->note | device->number;
}

/* These come first, and so are attached first: who is known is never known for longer than he is there. */
SEC("fentry/__transport_register_session")
int BPF_PROG(session_begins, void *group, void *acl, struct se_session *session)
{
	forget(session);
	return 0;
}

SEC("fentry/transport_deregister_session")
int BPF_PROG(session_ends, struct se_session *session)
{
	forget(session);
	return 0;
}

SEC("fentry/queue_cmd_ring")
int BPF_PROG(command_comes, struct tcmu_cmd *command)
{
	u32 minor;
	struct device *device = device_of(command->tcmu_dev, &minor);

	if (!device)
		return 0;
	device->note = identify(command->se_cmd);
	device->command = (u64)command;
	return 0;
}

SEC("fentry/ring_insert_padding")
int BPF_PROG(command_has_id, struct tcmu_dev *udev)
{
	u32 minor;
	struct device *device = device_of(udev, &minor);
	struct tcmu_cmd *command;

	/* Not for a command, but for a task management function, or too late. */
	if (!device || !device->command || fault_late)
		return 0;
	command = (void *)device->command;
	write_note(device, minor, BPF_CORE_READ(command, cmd_id));
	return 0;
}

SEC("fexit/queue_cmd_ring")
int BPF_PROG(command_is_queued, struct tcmu_cmd *command, void *reason, int result)
{
	u32 minor;
	struct device *device = device_of(command->tcmu_dev, &minor);

	if (!device)
		return 0;
	/* The note was made; or the command waits for room and comes again, or was refused; or its entry was missed. */
	if (device->command != (u64)command || result) {
		device->command = 0;
		return 0;
	}
	for (u32 i = 0; i < fault_late && i < 100000; i++)
		*(volatile u64 *)&device->command = (u64)command;
	write_note(device, minor, command->cmd_id);
	return 0;
}

SEC("fexit/tcmu_reset_ring_store")
int BPF_PROG(ring_is_reset, struct config_item *item)
{
	struct se_device *of = (void *)item - bpf_core_field_offset(struct se_device, dev_action_group);
	struct tcmu_dev *udev = (void *)of - bpf_core_field_offset(struct tcmu_dev, se_dev);
	u32 minor = BPF_CORE_READ(udev, uio_info.uio_dev, minor);
	struct device *device = bpf_map_lookup_elem(&devices, &minor);

	if (device)
		__sync_fetch_and_add(&device->resets, 1);
	return 0;
}

/* The kernel asks for a licence that goes with its own; MIT does. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
