/* Layouts made of others. */
#ifndef SIDECAML_LAYOUT_H
#define SIDECAML_LAYOUT_H

#include "sidecaml/sidecaml.h"

/* That of a segment for the same tensors with one slot. */
void layout_of_one_slot(const struct sidecaml_layout *layout, struct sidecaml_layout *out);

#endif
