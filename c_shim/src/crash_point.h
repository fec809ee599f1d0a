/* Named places where a process can be made to die or stop, for the fault suite.
 *
 * Only a test build has them (SIDECAML_CRASH_POINTS defined): elsewhere the macro is nothing. There, a process that
 * comes past a point whose name is a file in the folder $SIDECAML_CRASH_POINTS takes the file, so that no other process
 * does, and kills or stops itself, as the file says: "KILL" or "STOP". A file of that name in the folder's "next" is
 * for whoever comes past after it. What was read and is about to be done lies in the folder's "hit". Names are
 * literals: the suite finds all of them in the sources.
 */
#ifndef SIDECAML_CRASH_POINT_H
#define SIDECAML_CRASH_POINT_H

#ifdef SIDECAML_CRASH_POINTS
void crash_point(const char *name);
#define CRASH_POINT(name) crash_point(name)
#else
#define CRASH_POINT(name) ((void)0)
#endif

#endif
