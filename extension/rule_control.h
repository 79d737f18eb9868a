/*
 * rule_control.h
 *	  What changes of rules are held to.
 */
#ifndef REBATE_RULE_CONTROL_H
#define REBATE_RULE_CONTROL_H

#include "rebate.h"
#include "person.h"
#include "store.h"

/* The version of the store that has controls and drafts */
#define CONTROL_STORE_VERSION 2

typedef struct RuleControl
{
	bool		approval;		/* they need a second person */
	Numeric		max_percent;	/* the greatest percentage of a rule; NULL: none */
} RuleControl;

/*
 * Both inside SPI as the store's owner, with the configuration locked: what is in
 * force, and what is from the generation on that is returned.
 */
extern RuleControl rule_control(Store *store);
extern int32 rule_control_write(const RuleControl *control, const Person *by);

#endif							/* REBATE_RULE_CONTROL_H */
