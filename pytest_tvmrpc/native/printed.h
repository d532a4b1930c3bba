/* What a session's process and its supervisor say to each other about the session's output. Both are
 * on one machine, and of one program: the numbers are as they lie in memory. */
#ifndef MRPC_PRINTED_H_
#define MRPC_PRINTED_H_

#include <stdint.h>

typedef struct {
  uint64_t number; /* any, to tell answers apart */
  uint64_t offset; /* in all that was printed; or MRPC_PRINTED_END */
} mrpc_printed_question;

typedef struct {
  uint64_t number;     /* the question's */
  uint64_t begin, end; /* where the content begins, and where all the output ends */
  uint64_t nbytes;     /* of content, which follows */
} mrpc_printed_answer;

#define MRPC_PRINTED_END UINT64_MAX /* asks where the end is, and has the pipe emptied first */
enum { MRPC_PRINTED_PIECE = 32 * 1024 }; /* the most content of one answer */

/* What is left of the output from an offset on: eight bytes, little-endian, with the offset of its
 * end, then the text. Where some of it is gone, that is the beginning.
 *
 * `limit` bytes of text at most; below 0: all there is. *out is the caller's, to be freed. Returns
 * its bytes, or MRPC_ERROR with the reason in `why`. */
int64_t mrpc_printed(int lifeline, uint64_t since, int64_t limit, uint8_t **out, char *why);

#endif /* MRPC_PRINTED_H_ */
