/* What control.c and the tests need of a channel beyond sidecaml.h. */
#ifndef SIDECAML_CHANNEL_H
#define SIDECAML_CHANNEL_H

#include "sidecaml/sidecaml.h"

/* Gives the channel the control socket that it was attached without (-1). */
void channel_adopt_control(sidecaml_channel *channel, int control_fd);

/* How many of its waits have spun longer than sidecaml_channel_spin. */
uint64_t channel_spins(const sidecaml_channel *channel);

#endif
