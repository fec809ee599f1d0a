/* What the files of the worker's side share: its channels, and the requests that it has taken. */
#ifndef SIDECAML_SERVED_H
#define SIDECAML_SERVED_H

#include "batch.h"
#include "checked.h"
#include "crowd.h"
#include "doorbell.h"
#include "guard.h"
#include "journal.h"
#include "mapping.h"
#include "ring.h"
#include "runners.h"
#include "spin.h"
#include "staging.h"

enum level { LEVEL_HIGH, LEVEL_NORMAL, LEVELS };

struct served_channel {
    /* What a look for a request needs lies together: of many channels most have none. */
    struct ring_worker ring;
    enum level level;
    bool broken;            /* the client took pages of the segment away: nothing of it is looked at any more */
    bool exhausted;         /* has nothing more for the batch that is being formed */
    bool is_heavy;          /* it asks for much: it had a large part of its last run (schedule.c) */
    uint32_t is_strict_for; /* so many requests that have not the time for a full run are refused (schedule.c) */
    struct sidecaml_client_block *block;
    struct sidecaml_journal *journal;
    struct mapping segment, journal_page;
    struct sidecaml_worker_fds fds;
    struct doorbell request, answer;
    struct ticket_range suspects; /* of the last run of a predecessor that died: started so often, and whether it */
    uint32_t suspect_attempts;    /* succeeded */
    bool suspects_committed;
    bool posted;                 /* the request doorbell holds posts that are not taken back */
    bool muted;                  /* it is not listened to: the client posted more than it had requests for */
    bool to_tell;                /* that it is broken: the caller does not know yet */
    uint64_t met;                /* the epoch in which its client was counted last (crowd.h) */
    int64_t deficit_ns;          /* time on the engine that it may still have, or owes (schedule.c) */
    uint64_t posts_taken;        /* back, in all */
    struct ticket_range running; /* its part of the run that is under way */
    struct served_channel *next; /* another one with a part in it, of the worker's `parts` */
    struct guarded *guarded;
    struct staging *staging; /* NULL where requests run on the segment itself */
    /* What its latest request with a runner was: one with the same dims is that again. NULL for nothing. */
    struct kind *kind;
    bool runs_alone;         /* and whether such requests are not for batches */
    bool is_suspect;         /* one that had a part in a batch that failed was refused before it ran alone (blame.h) */
    uint32_t spoiled;        /* so many of its requests are not for batches, for one failed (blame.h) */
    uint64_t alone_until_ns; /* none of its requests is; 0: they are */
    struct cost cost;        /* of its requests that are of no kind, which its caller runs */
    uint64_t doubt_at_ns;    /* when an estimate that refuses its requests may be doubted next; 0 before one does */
    struct batch_cache batches;
    /* Private: computed by the daemon, never read back from the segment. */
    struct sidecaml_layout layout;
    uint64_t state;      /* in which a runner must be bound to be used */
    uint32_t dynamic_in; /* of `dynamic`, inputs */
    uint32_t dynamic_count;
    uint32_t words_in;        /* dims of all dynamic inputs */
    uint32_t words;           /* and of all dynamic outputs */
    uint32_t *dynamic;        /* the dynamic tensors */
    uint32_t *word_at;        /* words: where each of their dims stands, counted from the first dim of a slot */
    uint64_t *asked;          /* words_in: the dims of the request that is looked at */
    struct runners runners[]; /* one a slot */
};

/* A request that is RUNNING. */
struct taken {
    struct served_channel *channel;
    bool is_native;     /* of the kind that the batcher is at; otherwise the caller's to run */
    uint32_t failed_at; /* 1 + its place in the batch that failed with it; 0 for none */
    struct sidecaml_request request;
};

/* A batch that failed, for which somebody has to answer (blame.h). */
struct failed_batch {
    uint32_t count; /* 0: there is none */
    bool is_copied, is_answered;
    uint64_t took_ns;
};

struct sidecaml_worker {
    struct sidecaml_status_page *status;
    struct mapping status_pages;
    uint32_t page; /* of those, this worker's */
    struct crowd *crowd;
    int epoll_fd;
    uint64_t looked_at_control_ns;
    uint64_t last_ns;      /* the latest clock reading, which may be a tick behind the one before */
    uint64_t breaks;       /* as many of the guard's were looked at */
    uint32_t turn[LEVELS]; /* the channel to look at first, so that none starves the others */
    uint32_t high_runs;    /* of the high level, in a row */
    uint32_t high_count;   /* channels of the high level */
    uint32_t count;        /* entries of `channels`, detached ones (NULL) included */
    struct served_channel **channels;
    uint32_t *active;            /* as many: the channels that have given a request to the batch that is being formed */
    uint32_t light_turn[LEVELS]; /* as `turn`, of those who ask for little */
    bool is_all_next[LEVELS];    /* the next run is for everybody (schedule.c) */
    uint32_t apart_runs[LEVELS]; /* for so many runs who begins goes by time on the engine (schedule.c) */
    /* Requests that were taken together, and how many of them are dealt with. */
    struct taken *taken;
    uint32_t taken_count, taken_at;
    bool by_stretches;            /* those of them that are neighbours are run together, for copying does not pay */
    struct served_channel *parts; /* the channels of those requests, a list */
    struct taken one;             /* what `taken` points to as long as nothing is batched */
    bool is_urgent;               /* some of them have deadlines, or are to be stamped */
    uint32_t untimed;             /* runs since the last that was measured */
    uint64_t began_ns;            /* of the run that is under way, with its copies; 0 when it is not measured */
    uint64_t engine_began_ns;     /* without them */
    struct failed_batch failed;   /* of those that are taken */
    uint64_t shortest_ns;         /* run, of late */
    struct batcher batcher;
    struct spinner spinner;
};

static inline struct served_channel *channel_of(const sidecaml_worker *worker, uint32_t channel) {
    return channel < worker->count ? worker->channels[channel] : NULL;
}

/* --- worker.c ---------------------------------------------------------------------------------------------------- */

uint64_t worker_read_clock(sidecaml_worker *worker);

/* Counts a channel's client among those who are about; the first time in an epoch is enough. */
void worker_meet_client(sidecaml_worker *worker, struct served_channel *channel, uint32_t index);

/* As sidecaml_worker_next, for at most so many requests that can be run together: 1 with them in `taken`. */
int worker_next(sidecaml_worker *worker, uint64_t timeout_ns, uint32_t most);

/* The last step of a request: 1 when the client had given up, or has lost its right to an answer. Who publishes looks
 * for sleepers next: worker_wake_client, once after all of them. */
int worker_publish(sidecaml_worker *worker, struct served_channel *channel, const struct sidecaml_request *request,
                   int status);
/* As worker_publish, of so many that were taken: they succeeded. */
void worker_publish_taken(sidecaml_worker *worker, const struct taken *taken, uint32_t count);
void worker_wake_client(struct served_channel *channel);
/* Ends a request with an error, in so many words. */
void worker_fail(sidecaml_worker *worker, struct served_channel *channel, const struct sidecaml_request *request,
                 int status, const char *message);
/* No channel has a part in the run that was under way. */
void worker_forget_parts(sidecaml_worker *worker);
/* Hands the next of the taken requests out, to be run alone. */
struct taken *worker_hand_out(sidecaml_worker *worker, struct sidecaml_request *out);
/* What a run is to a channel's journal: its beginning, and its end up to the last of its tickets. */
void worker_note_start(struct served_channel *channel, struct ticket_range run, uint32_t attempts);
void worker_commit(struct served_channel *channel, uint64_t last);
/* Begins the clock of a run, where it matters how long that takes, or it is time to look; before what is copied for it,
 * which takes the worker's time, too. */
void worker_begin_clock(sidecaml_worker *worker);
/* And that of the engine, after the copies. They are no part of what is learned of a kind: who takes pages out of its
 * segment makes copies slow, and is not to have others refused by that. */
void worker_begin_engine(sidecaml_worker *worker);
/* How long the engine has had; 0 when it is not measured. */
uint64_t worker_engine_ns(sidecaml_worker *worker);
/* Counts the time of the run that has just ended; how long it took, 0 when that was not measured. */
uint64_t worker_charge(sidecaml_worker *worker);

/* NULL where requests run on the segment itself. */
static inline struct staging *staging_of(const struct served_channel *channel) {
#ifdef SIDECAML_UNCHECKED /* bench/drivers: what do checks cost? */
    (void)channel;
    return NULL;
#else
    return channel->staging;
#endif
}

/* In the segment, or in private memory where one place serves every slot. Everything that reads or writes tensors and
 * dims of a request that runs alone goes through here. */
struct place {
    uint8_t *base;
    const struct sidecaml_layout *layout;
    uint32_t slot; /* out of the layout's range when the slot is out of the channel's */
};

static inline struct place place_of(const struct served_channel *channel, uint32_t slot) {
    const struct staging *staging = staging_of(channel);
    if (!staging) return (struct place){channel->segment.base, &channel->layout, slot};
    return (struct place){staging->memory.base, &staging->layout, slot < channel->layout.slot_count ? 0 : UINT32_MAX};
}

/* --- schedule.c -------------------------------------------------------------------------------------------------- */

/* A client whose requests are all refused can submit as fast as that goes: after so many others have their turn. */
#define MOST_A_LOOK 16

/* Takes what is to be run next, at most `most` requests that can be run together; false when there is nothing. Requests
 * that cannot make their deadline are refused meanwhile. Never waits. */
bool schedule(sidecaml_worker *worker, uint32_t most);
/* From now on, for some runs, who begins one is a matter of time on the engine at this level. */
void schedule_go_apart(sidecaml_worker *worker, enum level level);
/* What a channel's requests are from now on that come with the dims of this runner, in whatever slot. */
void schedule_note_kind(sidecaml_worker *worker, struct served_channel *channel, const struct runner *runner);
/* Of those that are taken, whether one is left to run by itself. Of several, those ahead of it that cannot make their
 * deadline any more are refused. */
bool schedule_goes_on(sidecaml_worker *worker);

/* --- serve.c ----------------------------------------------------------------------------------------------------- */

/* The runner of the request in a slot, whose dims are read here, once: what the client makes of them from now on
 * changes nothing. NULL when there is none: dims beyond the largest are those of no runner. */
struct runner *runner_for(struct served_channel *channel, uint32_t slot);

/* Whether the request in a slot has these dims; each is read once. From the segment, whether or not it will run on a
 * copy: what runs it is for the dims that were read, and for no others. */
static inline bool asks_for(const struct served_channel *channel, uint32_t slot, const uint64_t *dims) {
    const uint64_t *there = dims_at(channel->segment.base, &channel->layout, slot, 0);
    for (uint32_t i = 0; i < channel->words_in; i++)
        if (read_once(there[channel->word_at[i]]) != dims[i]) return false;
    return true;
}

#endif
