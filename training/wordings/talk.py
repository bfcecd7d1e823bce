"""Talk that needs no picture: greetings, thanks, who the model is, and what it does not know."""

# A frame is one line, however long.
# ruff: noqa: E501

GREETING = """
(hello|hi|hey|hiya|yo|good morning|good evening|good afternoon|howdy|greetings|hey there|hi there)
(hello|hi|hey) (there|friend|robot|computer|model|assistant|you)
how are you (doing|today|)
(hello|hi|hey), how are you (doing|today|)
(nice|good|pleased) to meet you
what's up
how is it going
"""

THANKS = """
(thanks|thank you|thx|cheers|ta|many thanks|thanks a lot|thank you very much|much appreciated)
(great|nice|cool|perfect|awesome|good|okay|ok|well done|very good|good job), (thanks|thank you)
(great|nice|cool|perfect|awesome|well done|very good|good job|excellent|brilliant)
(that is|that's) (great|right|correct|helpful|nice|cool|good)
you are (great|right|good|clever|smart|helpful)
"""

GOODBYE = """
(bye|goodbye|good bye|see you|see you later|bye bye|good night|farewell|take care|cya)
(that is|that's) all (for now|for today|)
i (have to|must) go (now|)
"""

WHO = """
who are you
what are you
what (can|do) you (do|know)
what (are you|is it you are) (able to do|good at|made for|capable of)
(what is your|do you have a|tell me your) name
(are you|is this) (a robot|a human|an ai|a person|a computer|chatgpt|llava|a bot|real|alive)
(tell me|say something) about yourself
(who|what) (made|built|trained) you
(what|which) model (are you|is this)
how (can|do) (you|i) (help me|use you|use this)
what (kind of |)(questions|things) can (i ask|you answer)
help
what (shapes|colours|colors) do you know
introduce yourself
how (old|big) are you
"""

OFF_TOPIC = """
what is the capital of %PLACE
where is %PLACE
how (do i get|far is it|long does it take) to %PLACE
how many people live in %PLACE
tell me (about|something about|the history of|everything about) %TOPIC
what (is|are) %TOPIC
what do you (know|think) about %TOPIC
explain %TOPIC (to me|briefly|in simple words|)
who (invented|discovered|wrote|won|is the best at) %TOPIC
why is %TOPIC (important|so hard|so popular|dangerous|expensive)
how does %TOPIC work
can you teach me %TOPIC
write (me |)(a|an) (poem|story|song|essay|letter|email|joke|haiku) (about %TOPIC|)
write (a|some) (python|java|javascript|rust|c|sql) (code|function|program|script) (for %TOPIC|to %TASK|)
how (do|can|should) i %TASK
can you %TASK (for me|)
help me (to |)%TASK
please %TASK
(what is|calculate|compute|how much is) %DIGIT (plus|times|minus|divided by|+|*) %DIGIT
what is the (square root|cube|double|half) of %DIGIT
what time is it
what (day|date|year|month) is it (today|)
what is the weather (like |)(today|tomorrow|in %PLACE|)
will it rain (today|tomorrow|)
tell me a (joke|story|secret|fact|riddle)
do you like %TOPIC
who is (the president of %PLACE|%PERSON|the king of %PLACE|the best football player)
when (was|did) %PERSON (born|die|live)
how old is %PERSON
translate (this|hello|good morning|the word dog) (to|into) (french|german|spanish|italian|chinese)
how do you say (hello|thank you|cat) in (french|german|spanish|japanese)
what is the meaning of (life|this word|love|the universe)
(recommend|suggest) (a|an|some|me a) (book|film|movie|restaurant|recipe|hotel|song|game)
how tall is (mount everest|the eiffel tower|a giraffe|an elephant)
who wrote (hamlet|romeo and juliet|the bible|harry potter|war and peace)
what should i (eat|cook|wear|do|buy|read|watch) (today|tonight|tomorrow|)
which %TOPIC is best
(is|are) %TOPIC (good|bad|healthy|safe|true|real)
what is (your|my) favourite (food|colour|film|song|animal|sport|book|number)
do you (dream|sleep|eat|love me|have feelings|speak french|have a mother)
how (many|much) (euros|dollars|calories|legs|days|hours|bones) (are|is|does) (in |)(a spider|a year|a week|a dog|an apple|it) (have|)
(give|send|show) me (a recipe for %FOOD|the news|your code|your password|a list of %TOPIC)
what is the price of (gold|%FOOD|a house|bitcoin)
(book|order|buy) me (a flight to %PLACE|%FOOD|a ticket|a taxi)
i (feel|am) (sad|happy|tired|hungry|bored|sick|lonely)
(summarise|summarize|read) (this article|this book|the text|the news)
is there (a|an) %ANIMAL%INPIC
do you see (a|an) %ANIMAL%INPIC
what (breed|colour|kind) is the %ANIMAL
how many %ANIMALs are there%INPIC
where is the %ANIMAL
who is the (person|man|woman|boy|girl|child)%INPIC
what is the (man|woman|boy|girl|person|%ANIMAL) (doing|wearing|holding|eating)
what does the (sign|text|label|writing) say
read the (text|sign|letters|words)%INPIC
what (year|day|place|city|country) was this (picture|photo) taken (in|)
who (drew|took|painted|made) this (picture|photo|drawing)
"""

TALK_MACROS = {
    "PLACE": "(france|germany|spain|italy|england|japan|china|india|brazil|peru|egypt|paris|london|"
    "berlin|rome|madrid|tokyo|new york|canada|mexico|norway|kenya|america|australia|moscow|oslo)",
    "TOPIC": "(football|tennis|chess|music|history|politics|the moon|the sun|mars|cars|physics|"
    "maths|biology|chemistry|art|computers|the internet|quantum mechanics|cooking|dogs|cats|"
    "dinosaurs|love|money|religion|medicine|photosynthesis|gravity|the economy|the war|french|"
    "electricity|black holes|machine learning|poetry|the roman empire|bread|coffee|tea|wine|"
    "books|films|space|volcanoes|trains|planes|fish|birds|the ocean|evolution|bitcoin|linux)",
    "TASK": "(bake a cake|cook rice|learn french|fix my car|write a letter|sort a list|lose weight|"
    "find a job|book a flight|play the piano|tie a tie|sleep better|make coffee|save money|"
    "clean my house|reverse a string|open a file|grow tomatoes|do my homework|file my taxes|"
    "call my mother|play a song|set an alarm|send an email|buy a house|solve this equation)",
    "DIGIT": "(1|2|3|4|5|6|7|8|9|10|12|17|23|42|100|two|three|seven|five|nine|twelve)",
    "PERSON": "(einstein|shakespeare|napoleon|mozart|picasso|cleopatra|newton|darwin|elvis|"
    "marie curie|julius caesar|messi|beethoven|the queen|the pope|leonardo da vinci|gandhi)",
    "FOOD": "(pizza|pasta|soup|bread|cake|curry|sushi|salad|pancakes|lasagne|apple pie|milk)",
    "ANIMAL": "(dog|cat|horse|person|car|house|tree|bird|cow|man|giraffe|elephant|lion|bus|bicycle|"
    "chair|table|phone|banana|apple|fish|mouse|flower|sheep|plane|boat|train|duck|bear|zebra)",
}

HOW_DO_YOU_KNOW = """
how do you know (that|it|this|)
why do you (think|say|believe) (so|that|this|it)
why
why is that
how can you tell
what makes you (think|say) (so|that)
(explain|justify) (your answer|yourself|that)
how come
"""

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant who looks at pictures and answers questions about them.",
    "Answer briefly.",
    "You are a friendly robot. Answer in one sentence.",
    "You are an assistant for people who cannot see well. Describe the pictures plainly.",
    "A conversation between a human and a polite assistant.",
    "A chat between a user and an AI assistant. The assistant answers questions truthfully.",
    "Be concise and precise.",
    "You look at pictures. Say only what you see.",
    "You are a patient teacher who helps children to learn about shapes and colours.",
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.",
    "",
)
"""Stand in for the usual system prompt in a few chats, so that another one does no harm."""
