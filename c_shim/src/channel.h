/* What control.c needs of a channel beyond sidecaml.h. */
#ifndef SIDECAML_CHANNEL_H
#define SIDECAML_CHANNEL_H

#include "sidecaml/sidecaml.h"

/* Gives the channel the control socket that it was attached without (-1). */
void channel_adopt_control(sidecaml_channel *channel, int control_fd);

#endif
