/* The life of a slot with everybody who may die: client, worker, successor, and what the supervisor tells them.
 *
 * One step (an atomic or d_step here) is one access to shared memory or one system call, with the private work around
 * it; README.md maps each label to the C code that it stands for. Workers and clients can be killed between any two
 * steps. Memory is sequentially consistent: weaker orders are for tests/interleave, which runs the C code itself.
 *
 * Checked: assertions (below), and that no state is stuck. Whoever waits for ever is stuck: the model is finite, so a
 * lost wake-up ends in a state in which a process waits that may not. -DMUTANT_... makes one mistake, which must be
 * found.
 */

#ifndef CHANNELS
#define CHANNELS 1
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef REQUESTS
#define REQUESTS 3 /* of each client */
#endif
#ifndef WORKER_DEATHS
#define WORKER_DEATHS 2
#endif
#ifndef CLIENT_DEATHS
#define CLIENT_DEATHS 1
#endif
/* The slots whose requests may be given up, as bits. */
#ifndef GIVE_UP
#define GIVE_UP 3
#endif
#define MAX_ATTEMPTS 2
/* The most requests of a run. */
#ifndef BATCH
#define BATCH 1
#endif

/* --- Words --- */
#define FREE 0
#define SUBMITTED 1
#define RUNNING 2
#define DONE 3
#define FAILED 4
#define ABANDONED 5
#define WORD(ticket, state) ((ticket) * 8 + (state))
#define TICKET(word) ((word) / 8)
#define BIT(ticket) (1 << (ticket))

#define OK 0
#define ENGINE_FAILED 1
#define WORKER_CRASHED 2
#define DEADLINE 3

typedef Channel {
    /* The segment. Outputs in two halves, so that a run can be caught between them. */
    byte word[SLOTS];
    byte input[SLOTS];      /* ticket + 1 */
    byte out_ticket[SLOTS]; /* ticket + 1 */
    byte out_state[SLOTS];  /* the state after the run: the set of tickets that were applied to it */
    byte status[SLOTS];
    bit waiting;
    /* The doorbells: their counts, and whether epoll has an edge to report. */
    byte answer;
    byte request;
    bit edge;
    /* The journal: `started` and `committed` are one word each, stored in one step. */
    byte started;  /* ticket + 1; the first of the run */
    byte upto;     /* the last of the run + 1 */
    byte attempts;
    byte committed; /* ticket + 1; the last of the run */
    bit place;
    byte state[2];
    /* The client's control socket. */
    bit gone;
    bit client_left;
    /* What really happened, for the assertions. */
    byte runs[REQUESTS];
    byte alone[REQUESTS]; /* of those, runs of this request only */
    byte applied;     /* sets of tickets: whose state was committed, */
    byte done;        /* published as DONE, */
    byte not_applied; /* cancelled or published as FAILED */
};
Channel ch[CHANNELS];

/* The status page. */
bit parked;

/* --- The world --- */
#define BEGIN 1
#define ATTACH 2
#define DETACH 3
#define DRAIN 4
chan control[2] = [2 * CHANNELS + 2] of { byte, byte };
bit killed[2];  /* SIGKILL is under way: no step of the worker's code follows */
bit exited[2];  /* the pidfd is readable */
bit serving;     /* the worker that was told to serve last */
bit client_killed[CHANNELS];
byte worker_deaths, client_deaths;

#if CHANNELS == 1
#define ALL(condition) (condition(0))
#define ANY(condition) (condition(0))
#else
#define ALL(condition) (condition(0) && condition(1))
#define ANY(condition) (condition(0) || condition(1))
#endif

/* --- The client -------------------------------------------------------------------------------------------------- */

#define C ch[me]
#define IS(state) (C.word[s] == WORD(held[s] - 1, state))
#define FINISHED (IS(DONE) || IS(FAILED))
#if SLOTS > 2
#define NONE_HELD (!held[0] && !held[1] && !held[2])
#elif SLOTS > 1
#define NONE_HELD (!held[0] && !held[1])
#else
#define NONE_HELD (!held[0])
#endif

proctype Client(byte me) {
    byte held[SLOTS]; /* ticket + 1 */
    byte ticket, s;
    bit patient, timed;

    {
        skip;
again:
        if
        :: atomic { ticket < REQUESTS && !C.gone && C.word[ticket % SLOTS] == WORD(ticket, FREE) -> /* SUBMIT */
                C.input[ticket % SLOTS] = ticket + 1;
                C.word[ticket % SLOTS] = WORD(ticket, SUBMITTED);
                held[ticket % SLOTS] = ticket + 1;
                ticket++ }
            goto submitted
        :: atomic { held[0] && !C.gone -> s = 0; patient = 1; goto await }
#if GIVE_UP & 1
        :: atomic { held[0] && !C.gone -> s = 0; patient = 0; goto await }
#endif
#if SLOTS > 1
        :: atomic { held[1] && !C.gone -> s = 1; patient = 1; goto await }
#if GIVE_UP & 2
        :: atomic { held[1] && !C.gone -> s = 1; patient = 0; goto await }
#endif
#endif
#if SLOTS > 2
        :: atomic { held[2] && !C.gone -> s = 2; patient = 1; goto await }
#endif
        :: ticket == REQUESTS && NONE_HELD -> goto quiet
        :: C.gone -> goto leave /* TOLD */
        fi;

submitted:
        if /* LOOK-PARKED */
        :: !parked -> goto again
        :: parked
        fi;
        d_step { C.request++; C.edge = 1 } /* POST-REQUEST */
        goto again;

await: /* a request with a deadline is given up at any time; without one, a wake-up must come */
#ifdef MUTANT_CLIENT_LOOKS_BEFORE_FLAG
        if
        :: FINISHED -> goto consume
        :: !FINISHED
        fi;
#endif
        if /* DRAIN-ANSWER */
        :: atomic { FINISHED -> timed = 0; goto consume }
        :: atomic { !FINISHED && C.gone -> timed = 0; goto leave } /* TOLD */
        :: atomic { !FINISHED && !patient -> timed = 0; goto give_up }
        :: atomic { !FINISHED && !C.gone && !timed -> C.answer = (C.answer > 0 -> C.answer - 1 : 0) }
        fi;
        C.waiting = 1; /* WAITING-UP */
#ifndef MUTANT_CLIENT_LOOKS_BEFORE_FLAG
        if /* LOOK-WORD */
        :: FINISHED -> goto unpark
        :: !FINISHED
        fi;
#endif
        if /* SLEEP */
        :: C.answer > 0
        :: C.gone
        :: !patient -> timed = 1
        fi;
unpark:
        C.waiting = 0; /* WAITING-DOWN */
        goto await;

give_up: /* a loop of compare-and-exchanges: one of these must succeed */
        if
        :: d_step { IS(SUBMITTED) -> /* CANCEL */
                C.word[s] = WORD(held[s] - 1 + SLOTS, FREE);
                C.not_applied = C.not_applied | BIT(held[s] - 1);
                held[s] = 0; s = 0; patient = 0 }
        :: d_step { IS(RUNNING) -> /* ABANDON */
                C.word[s] = WORD(held[s] - 1, ABANDONED);
                held[s] = 0; s = 0; patient = 0 }
        :: FINISHED -> goto consume
        :: !IS(SUBMITTED) && !IS(RUNNING) && !FINISHED -> assert(false)
        fi;
        goto again;

consume:
        atomic { /* READ, first half */
            assert(IS(FAILED) || C.out_ticket[s] == held[s]);
            assert(IS(DONE) || C.status[s] != OK);
            assert(IS(FAILED) || C.status[s] == OK);
            assert(C.status[s] != WORKER_CRASHED || C.runs[held[s] - 1] >= MAX_ATTEMPTS);
            assert(C.status[s] != WORKER_CRASHED || C.alone[held[s] - 1]) /* nobody's neighbour is to blame */
        }
        d_step { /* READ, second half; RELEASE */
            assert(IS(FAILED) || (C.out_ticket[s] == held[s] && C.out_state[s] & BIT(held[s] - 1)));
            C.word[s] = WORD(held[s] - 1 + SLOTS, FREE);
            held[s] = 0; s = 0; patient = 0
        }
        goto again;

quiet: /* what was abandoned is free again, and the state is what was answered */
        C.gone || C.word[0] % 8 == FREE;
#if SLOTS > 1
        C.gone || C.word[1] % 8 == FREE;
#endif
#if SLOTS > 2
        C.gone || C.word[2] % 8 == FREE;
#endif
        assert(C.gone || ((C.committed -> C.state[C.place] : 0) & (C.done | C.not_applied)) == C.done);
leave:  skip
    } unless { client_killed[me] };
    atomic {
        held[0] = 0;
#if SLOTS > 1
        held[1] = 0;
#endif
#if SLOTS > 2
        held[2] = 0;
#endif
        ticket = 0; s = 0; patient = 0; timed = 0;
        C.client_left = 1
    }
}

/* --- The worker -------------------------------------------------------------------------------------------------- */

#define W ch[c]
#define HEAD_WORD(c) ch[c].word[next[c] % SLOTS]
#define HEAD_IS(c, state) (HEAD_WORD(c) == WORD(next[c], state))
/* What a predecessor has completed. */
#ifndef MUTANT_FINISHED_NOT_STEPPED_OVER
#define HEAD_IS_FINISHED(c) (HEAD_IS(c, DONE) || HEAD_IS(c, FAILED))
#else
#define HEAD_IS_FINISHED(c) false
#endif
/* Whether the head's word is something for ring_peek. */
#define HAS_WORK(c) (attached[c] && (HEAD_IS(c, SUBMITTED) || HEAD_IS(c, RUNNING) || HEAD_IS(c, ABANDONED) || \
    HEAD_IS_FINISHED(c) || TICKET(HEAD_WORD(c)) > next[c]))
#define RINGS(c) (attached[c] && ch[c].edge && ch[c].request > 0)
#define SLOT_OF(ticket) ((ticket) % SLOTS)
/* Outputs may be written: the slot is this request's, and nobody reads it as an answer. */
#define OWNED(ticket) (W.word[SLOT_OF(ticket)] == WORD(ticket, RUNNING) || W.word[SLOT_OF(ticket)] == WORD(ticket, ABANDONED))
#define STATE (W.committed -> W.state[W.place] : 0)

/* Whether the request at the head was in the last run of a predecessor. */
#define IS_SUSPECT(c) (suspects[c] & BIT(next[c]))
/* Whether it goes into the run that is being formed. */
#ifndef MUTANT_SUSPECTS_TOGETHER
#define GOES_WITH(c) (!rest || (count < BATCH && !alone && !IS_SUSPECT(c)))
#else
#define GOES_WITH(c) (!rest || count < BATCH)
#endif
#define IS_ALONE (first == last)
#define NOBODY 100

/* For each ticket t of the run. */
#define EACH(...) \
    t = first; \
    do \
    :: t <= last && (part & BIT(t)) -> __VA_ARGS__; t++ \
    :: t <= last && !(part & BIT(t)) -> t++ \
    :: t > last -> t = 0; break \
    od

inline take_head() {
    rest = rest | BIT(next[c]);
    count++;
    alone = (IS_SUSPECT(c) -> 1 : 0);
    attempts = (alone -> suspect_attempts[c] : 0);
    next[c]++
}

/* `part` is the run that comes: its first and its last. */
inline measure() {
    first = 0;
    do
    :: !(part & BIT(first)) -> first++
    :: part & BIT(first) -> break
    od;
    last = first;
    t = first;
    do
    :: part >= BIT(t) -> last = (part & BIT(t) -> t : last); t++
    :: part < BIT(t) -> t = 0; break
    od
}

/* `t` has its end: to the next of the run. */
inline advance() {
    rest = rest & (255 - BIT(t));
    do
    :: t < last && !(part & BIT(t + 1)) -> t++
    :: t < last && (part & BIT(t + 1)) -> t++; break
    :: t >= last -> t = NOBODY; break
    od
}

proctype Worker(bit me) {
    byte next[CHANNELS];
    bit attached[CHANNELS], posted[CHANNELS];
    /* The last run of a predecessor that died: its tickets, how often it was started, whether it was committed. */
    byte suspects[CHANNELS], suspect_attempts[CHANNELS];
    bit suspects_committed[CHANNELS];
    /* Sets of tickets: taken and not at its end yet, how many were taken; and the run that is under way. */
    byte rest, count, part, first, last;
    byte t, c, attempts, status, op;
    bit alone, works;

standby:
end_standby:
    if
    :: killed[me] -> goto dead
    :: atomic { control[me] ? BEGIN, c -> parked = 0 } /* BEGIN */
    fi;
    {
        skip;
loop:
        if /* CONTROL: looked at now and then, and always before a sleep ends */
        :: nempty(control[me]) -> goto hear
        :: true
        fi;
take:
        if
        :: atomic { c == CHANNELS -> c = 0; goto park }
        :: atomic { c < CHANNELS && !attached[c] -> c++; goto take }
        :: atomic { c < CHANNELS && attached[c] -> /* TAKE */
            if
            :: HEAD_IS(c, SUBMITTED) && GOES_WITH(c) ->
#ifndef MUTANT_STARTED_BEFORE_TAKE
                HEAD_WORD(c) = WORD(next[c], RUNNING);
#else
                W.started = next[c] + 1;
                W.upto = next[c] + 1;
                W.attempts = 1;
                goto take_late
#endif
#ifndef MUTANT_SKIPS_RUNNING
            :: HEAD_IS(c, RUNNING) && GOES_WITH(c) -> skip /* TAKE-AGAIN */
#else
            :: HEAD_IS(c, RUNNING) -> next[c]++; goto take
#endif
#ifndef MUTANT_ABANDONED_STAYS
            :: HEAD_IS(c, ABANDONED) -> /* FREE-ABANDONED */
                HEAD_WORD(c) = WORD(next[c] + SLOTS, FREE);
                next[c]++;
                goto take
#else
            :: HEAD_IS(c, ABANDONED) -> next[c]++; goto take
#endif
            :: HEAD_IS_FINISHED(c) -> next[c]++; goto take /* STEP-OVER */
            :: TICKET(HEAD_WORD(c)) > next[c] -> next[c]++; goto take /* SKIP-CANCELLED */
            :: else ->
                if
                :: rest -> goto close /* nothing more goes with them */
                :: else -> c++; goto take
                fi
            fi;
            if
#ifndef MUTANT_RUNS_COMMITTED_AGAIN
            :: IS_SUSPECT(c) && suspects_committed[c] -> /* ONLY-PUBLISH */
                assert(!rest);
                take_head();
                part = rest;
                measure();
                t = first;
                goto publish
            :: !(IS_SUSPECT(c) && suspects_committed[c]) -> take_head()
#else
            :: take_head()
#endif
#ifdef REFUSED
            :: !(IS_SUSPECT(c) && suspects_committed[c]) && REFUSED & BIT(next[c]) -> /* its deadline is too near */
                t = next[c];
                next[c]++;
                goto refuse
#endif
            fi;
            goto take }
        fi;
#ifdef MUTANT_STARTED_BEFORE_TAKE
take_late:
        if
        :: d_step { HEAD_IS(c, SUBMITTED) -> HEAD_WORD(c) = WORD(next[c], RUNNING); take_head(); attempts = 0 }
        :: !HEAD_IS(c, SUBMITTED)
        fi;
        goto take;
#endif
#ifdef REFUSED
refuse: W.status[SLOT_OF(t)] = DEADLINE; /* REFUSE */
        if
        :: atomic { W.word[SLOT_OF(t)] == WORD(t, ABANDONED) -> W.word[SLOT_OF(t)] = WORD(t + SLOTS, FREE); t = 0; goto take }
        :: d_step { W.word[SLOT_OF(t)] != WORD(t, ABANDONED) ->
            assert(W.word[SLOT_OF(t)] == WORD(t, RUNNING));
            assert(!((W.done | W.not_applied) & BIT(t)));
            W.word[SLOT_OF(t)] = WORD(t, FAILED);
            W.not_applied = W.not_applied | BIT(t);
            t = 0 }
        fi;
        if
        :: atomic { !W.waiting -> goto take }
        :: d_step { W.waiting -> W.waiting = 0 }
        fi;
        W.answer++;
        goto take;
#endif
close:
        atomic {
            part = rest;
            measure() }
start:
        if
        :: atomic { attempts >= MAX_ATTEMPTS -> status = WORKER_CRASHED; goto complete }
        :: atomic { attempts < MAX_ATTEMPTS -> /* STARTED */
#ifdef MUTANT_START_OF_BATCH_NOT_NOTED
            if
            :: !IS_ALONE -> goto started
            :: else
            fi;
#endif
#ifndef MUTANT_STARTED_AFTER_RUN
            W.started = first + 1;
            W.upto = last + 1;
#ifdef MUTANT_STARTED_WITH_THE_FIRST
            W.upto = first + 1;
#endif
            W.attempts = attempts + 1;
#endif
            EACH(W.runs[t]++);
            if
            :: IS_ALONE -> assert(W.alone[first] < MAX_ATTEMPTS); W.alone[first]++
            :: else
            fi
            }
        fi;
#ifdef MUTANT_START_OF_BATCH_NOT_NOTED
started:
#endif
        atomic { /* RUN, first half */
            assert(!(STATE & part));
            EACH(assert(OWNED(t) && W.input[SLOT_OF(t)] == t + 1); W.out_ticket[SLOT_OF(t)] = t + 1);
#ifdef MUTANT_STATE_IN_PLACE
            W.state[W.place] = STATE | part;
            W.committed = (W.committed -> W.committed : 100);
#endif
        }
        if
        :: d_step { /* RUN, second half: outputs, dims, and the state to the place that does not count */
#ifndef MUTANT_STATE_IN_PLACE
            W.state[1 - W.place] = STATE | part;
            EACH(assert(OWNED(t) && W.input[SLOT_OF(t)] == t + 1); W.out_state[SLOT_OF(t)] = W.state[1 - W.place])
#else
            EACH(W.out_state[SLOT_OF(t)] = STATE)
#endif
            }
#ifdef RUNS_FAIL
        :: atomic { IS_ALONE -> status = ENGINE_FAILED; goto complete } /* RUN fails */
        :: atomic { !IS_ALONE -> goto next_alone } /* each of them is run alone */
#endif
        fi;
#ifdef MUTANT_STARTED_AFTER_RUN
        d_step { W.started = first + 1; W.upto = last + 1; W.attempts = attempts + 1 };
#endif
        d_step { EACH(W.status[SLOT_OF(t)] = OK) }; /* STATUS */
#ifndef MUTANT_COMMIT_AFTER_DONE
        d_step { /* COMMIT */
            EACH(assert(!(W.applied & BIT(t))); W.applied = W.applied | BIT(t));
            W.committed = last + 1;
#ifdef MUTANT_COMMITTED_WITH_THE_FIRST
            W.committed = first + 1;
#endif
            W.place = 1 - W.place;
            t = first
        };
#else
        t = first;
#endif
        goto publish;
complete:
        atomic { W.status[SLOT_OF(first)] = status; t = first };
publish:
        if
#ifndef MUTANT_DONE_BLINDLY
        :: atomic { W.word[SLOT_OF(t)] == WORD(t, ABANDONED) -> goto quiet }
        :: atomic { W.word[SLOT_OF(t)] != WORD(t, ABANDONED) -> /* PUBLISH */
            assert(W.word[SLOT_OF(t)] == WORD(t, RUNNING));
#else
        :: atomic { true ->
#endif
            W.word[SLOT_OF(t)] = WORD(t, (status == OK -> DONE : FAILED));
            assert(!((W.done | W.not_applied) & BIT(t)));
            if
            :: status == OK ->
                /* Nothing that was answered is lost, and nothing comes early. */
                assert((W.out_state[SLOT_OF(t)] & (W.done | W.not_applied)) == W.done);
                assert(W.out_state[SLOT_OF(t)] < BIT(W.upto));
                W.done = W.done | BIT(t)
            :: else -> W.not_applied = W.not_applied | BIT(t)
            fi;
            advance();
            goto published }
        fi;
quiet:
        atomic { W.word[SLOT_OF(t)] = WORD(t + SLOTS, FREE); advance() } /* QUIET */
published:
#ifndef MUTANT_WAKES_BEFORE_THE_LAST
        if
        :: t != NOBODY -> goto publish
        :: t == NOBODY
        fi;
#else
        if
        :: t == NOBODY && !IS_ALONE -> goto ran
        :: !(t == NOBODY && !IS_ALONE)
        fi;
#endif
#ifdef MUTANT_COMMIT_AFTER_DONE
        if
        :: d_step { status == OK -> W.committed = last + 1; W.place = 1 - W.place }
        :: else
        fi;
#endif
        if /* TAKE-WAITING */
        :: atomic { !W.waiting -> goto woken }
        :: d_step { W.waiting -> W.waiting = 0 }
        fi;
        W.answer++; /* POST-ANSWER */
woken:
#ifdef MUTANT_WAKES_BEFORE_THE_LAST
        if
        :: t != NOBODY -> goto publish
        :: t == NOBODY
        fi;
#endif
ran:
        if
        :: atomic { !rest -> t = 0; part = 0; first = 0; last = 0; count = 0; attempts = 0; status = 0; alone = 0; c = 0; goto loop }
#ifdef RUNS_FAIL
        :: atomic { rest -> status = 0; goto next_alone }
#endif
        fi;
#ifdef RUNS_FAIL
next_alone:
        atomic {
            t = 0;
            do
            :: !(rest & BIT(t)) -> t++
            :: rest & BIT(t) -> break
            od;
            first = t; last = t; part = BIT(t); t = 0;
            goto start
        }
#endif

park:
#ifdef MUTANT_WORKER_LOOKS_BEFORE_FLAG
        works = HAS_WORK(0);
#if CHANNELS > 1
        works = works || HAS_WORK(1);
#endif
#endif
        atomic { /* DRAIN-REQUEST */
            if
            :: posted[0] -> posted[0] = 0; ch[0].request = 0
            :: else
            fi;
#if CHANNELS > 1
            if
            :: posted[1] -> posted[1] = 0; ch[1].request = 0
            :: else
            fi
#endif
        }
        parked = 1; /* PARKED-UP */
#ifndef MUTANT_WORKER_LOOKS_BEFORE_FLAG
        works = HAS_WORK(0); /* LOOK-WORDS */
#if CHANNELS > 1
        works = works || HAS_WORK(1);
#endif
#endif
        if /* SLEEP */
        :: atomic { works -> works = 0 }
        :: !works && nempty(control[me])
        :: d_step { !works && ANY(RINGS) ->
            if
            :: RINGS(0) -> ch[0].edge = 0; posted[0] = 1
            :: else
            fi;
#if CHANNELS > 1
            if
            :: RINGS(1) -> ch[1].edge = 0; posted[1] = 1
            :: else
            fi
#endif
            }
        fi;
        parked = 0; /* PARKED-DOWN */
        goto loop;

hear:
        atomic {
            control[me] ? op, c;
            if
            :: op == ATTACH -> /* RESUME: at the first of the run that was started last */
                if
                :: W.started == 0 -> next[c] = 0
                :: W.started > 0 ->
                    next[c] = W.started - 1;
                    suspects[c] = BIT(W.upto) - BIT(W.started - 1);
                    suspect_attempts[c] = W.attempts;
                    suspects_committed[c] = (W.committed == W.upto)
                fi;
                attached[c] = 1;
                posted[c] = 1; /* which posts were taken back only the dead knew */
                W.edge = (W.request > 0) /* epoll tells of what was there when it was added */
            :: op == DETACH ->
                attached[c] = 0; posted[c] = 0; next[c] = 0;
                suspects[c] = 0; suspect_attempts[c] = 0; suspects_committed[c] = 0; op = 0; c = 0; goto loop
            :: op == DRAIN -> goto drained
            fi;
            op = 0
        }
        if /* POST-AT-RESUME */
#ifdef MUTANT_POSTS_ONLY_IF_WAITING
        :: d_step { W.waiting -> W.answer++; c = 0 }
        :: d_step { !W.waiting -> c = 0 }
#else
#ifndef MUTANT_NO_POST_AT_RESUME
        :: d_step { true -> W.answer++; c = 0 }
#else
        :: d_step { true -> c = 0 }
#endif
#endif
        fi;
        goto loop;
drained:
        assert(!attached[0]);
#if CHANNELS > 1
        assert(!attached[1]);
#endif
    } unless { killed[me] };
dead:
    atomic {
        c = 0; t = 0; rest = 0; count = 0; part = 0; first = 0; last = 0; alone = 0;
        attempts = 0; status = 0; op = 0; works = killed[me];
        next[0] = 0; attached[0] = 0; posted[0] = 0;
        suspects[0] = 0; suspect_attempts[0] = 0; suspects_committed[0] = 0;
#if CHANNELS > 1
        next[1] = 0; attached[1] = 0; posted[1] = 0;
        suspects[1] = 0; suspect_attempts[1] = 0; suspects_committed[1] = 0;
#endif
        exited[me] = 1;
        if
        :: !works -> goto ended /* drained */
        :: else -> works = 0
        fi
    }
end_buried: /* until another process is warmed up in its place */
    !exited[me];
    goto standby;
ended:
    skip
}

/* --- The supervisor, and fate ------------------------------------------------------------------------------------ */

#define CLOSED(c) closed[c]

active proctype Supervisor() {
    bit closed[CHANNELS];
    byte op, c;

    atomic { /* OPEN: the segment is formatted */
#if SLOTS > 1
        ch[0].word[1] = WORD(1, FREE);
#if SLOTS > 2
        ch[0].word[2] = WORD(2, FREE);
#endif
#if CHANNELS > 1
        ch[1].word[1] = WORD(1, FREE);
#endif
#endif
        run Worker(0);
        run Worker(1);
        run Client(0);
#if CHANNELS > 1
        run Client(1);
#endif
    }
begin:
    atomic {
        control[serving] ! BEGIN, 0;
        c = 0;
        do
        :: c < CHANNELS ->
            if
#ifndef MUTANT_FORGETS_THE_DEAD
            :: !closed[c] -> control[serving] ! ATTACH, c
            :: else
#else
            :: control[serving] ! ATTACH, c
#endif
            fi;
            c++
        :: c == CHANNELS -> c = 0; break
        od
    }
    do
    :: atomic { ch[0].client_left && !closed[0] -> closed[0] = 1; control[serving] ! DETACH, 0 }
#if CHANNELS > 1
    :: atomic { ch[1].client_left && !closed[1] -> closed[1] = 1; control[serving] ! DETACH, 1 }
#endif
    :: exited[serving] -> goto take_over
#ifdef MUTANT_TAKES_OVER_FROM_THE_LIVING
    :: d_step { worker_deaths < WORKER_DEATHS -> worker_deaths++ }; goto take_over
#endif
    :: atomic { ALL(CLOSED) -> control[serving] ! DRAIN, 0; goto drain }
    od;

take_over: /* its death is known: the pidfd says so */
    atomic {
        do
        :: nempty(control[serving]) -> control[serving] ? op, c
        :: empty(control[serving]) -> break
        od;
        op = 0; c = 0;
        if
        :: exited[serving] -> killed[serving] = 0; exited[serving] = 0
        :: else
        fi;
        serving = 1 - serving
    }
#ifdef GONE
    if
    :: goto begin
    :: true /* the model cannot be loaded any more: the channels end */
    fi;
    ch[0].gone = 1;
#if CHANNELS > 1
    ch[1].gone = 1;
#endif
    goto end;
#else
    goto begin;
#endif
drain:
    exited[serving];
end: skip
}

/* SIGKILL, at any moment. */
active proctype Fate() {
end_fate:
    do
    :: d_step { worker_deaths < WORKER_DEATHS && !killed[serving] && !exited[serving] ->
            worker_deaths++; killed[serving] = 1 }
    :: d_step { client_deaths < CLIENT_DEATHS && !client_killed[0] && !ch[0].client_left ->
            client_deaths++; client_killed[0] = 1 }
    od
}
