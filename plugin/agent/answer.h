/* What the agent decides about one load. */
#ifndef TRIMTON_ANSWER_H
#define TRIMTON_ANSWER_H

typedef enum { ANSWER_VETO, ANSWER_ALLOW, ANSWER_REDIRECT } AnswerKind;

enum { ANSWER_TEXT_BYTES = 4096 };

/* ``text``: the reason of a veto, what is proven, or the folder to serve instead. */
typedef struct {
  AnswerKind kind;
  char text[ANSWER_TEXT_BYTES];
} Answer;

/* Make ``answer`` a veto; the text is cut where it is too long. */
__attribute__((format(printf, 2, 3))) void veto(Answer* answer, const char* format, ...);

#endif
