/* Sessions that several channels of one process share: a model's weights are there once. */
#ifndef SIDECAML_SHARED_SESSION_H
#define SIDECAML_SHARED_SESSION_H

#include "sidecaml/ort.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sidecaml_shared_session sidecaml_shared_session;

/* The session of a model's file with so many threads: the one that is there already, as long as the file has not
 * changed, else a new one, loaded and warmed up; fails as sidecaml_session_create and sidecaml_session_warm_up do. May
 * take seconds; callers of other threads wait for each other, so that no model is loaded twice. A file of weights
 * beside the model is not looked at: one that changed alone is not noticed. */
int sidecaml_shared_session_acquire(const char *model, uint32_t threads, sidecaml_shared_session **out,
                                    struct sidecaml_failure *why);
/* Once for each acquire, when no binding made meanwhile is left; the last one unloads the model. NULL is allowed. */
void sidecaml_shared_session_release(sidecaml_shared_session *shared);
/* One more hold on a session that the caller holds. This and release never wait for a model that is being loaded. */
sidecaml_shared_session *sidecaml_shared_session_retain(sidecaml_shared_session *shared);

sidecaml_session *sidecaml_shared_session_get(const sidecaml_shared_session *shared);

#ifdef __cplusplus
}
#endif

#endif
