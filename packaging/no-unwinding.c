/* For the static program: what std calls to walk the stack finds nothing there. Without the tables (no-unwind-tables.ld) it could find
   nothing anyway, and the library that would look for them is 55 kB. A panic is told with its place, and ends the program. */

enum { END_OF_STACK = 5 };

int _Unwind_Backtrace(void *step, void *with) { (void)step, (void)with; return END_OF_STACK; }

/* Asked of a frame, and there is none; or of an exception, and there is none in a program that aborts. */
#define NEVER(name) void *name(void) { __builtin_trap(); }
NEVER(_Unwind_DeleteException)
NEVER(_Unwind_FindEnclosingFunction)
NEVER(_Unwind_GetCFA)
NEVER(_Unwind_GetDataRelBase)
NEVER(_Unwind_GetIP)
NEVER(_Unwind_GetIPInfo)
NEVER(_Unwind_GetLanguageSpecificData)
NEVER(_Unwind_GetRegionStart)
NEVER(_Unwind_GetTextRelBase)
NEVER(_Unwind_RaiseException)
NEVER(_Unwind_Resume)
NEVER(_Unwind_SetGR)
NEVER(_Unwind_SetIP)
