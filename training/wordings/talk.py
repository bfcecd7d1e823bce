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
(hello|hi|hey) (everyone|everybody|again|dear|buddy|mate)
(good|lovely|nice) (day|morning|evening|afternoon) (to you|there|my friend|)
good day
(how do you do|how have you been|how are things|how is life|how is everything)
(long time no see|nice to see you|good to see you|good to see you again)
(hello|hi|hey). (are you there|anybody there|can you hear me)
(is|are) (anyone|anybody|you) there
(hi|hello|hey), (i am|i'm|my name is) (anna|tom|peter|maria|john|lisa|ahmed|yuki)
(i am|i'm|my name is) (anna|tom|peter|maria|john|lisa|ahmed|yuki), (hello|hi|nice to meet you)
(how is|how's) your day (going|so far|)
(hope|i hope) you are (well|fine|doing well|having a good day)
(what is new|what's new|what's going on|sup|wassup)
(hola|bonjour|hallo|aloha|salut|namaste|servus)
(welcome|welcome back|here i am|i am back|it's me|it's me again)
(let's|let us) (start|begin|chat|talk)
(are you|you) (ready|awake|okay|alright)
"""

THANKS = """
(thanks|thank you|thx|cheers|ta|many thanks|thanks a lot|thank you very much|much appreciated)
(great|nice|cool|perfect|awesome|good|okay|ok|well done|very good|good job), (thanks|thank you)
(great|nice|cool|perfect|awesome|well done|very good|good job|excellent|brilliant)
(that is|that's) (great|right|correct|helpful|nice|cool|good)
you are (great|right|good|clever|smart|helpful)
(thank you|thanks) (so much|a million|again|for that|for your help|for the help|for the answer|for telling me)
(i appreciate|i really appreciate) (it|that|your help|the help)
(that was|this was|it was) (very |really |)(helpful|useful|kind|nice|great)
(you have been|you were|you've been) (very |really |a great |)(help|helpful|kind)
(good work|good job|well done|nicely done|well answered)
(that|this) (helps|helped) (a lot|me|me a lot|)
(okay|ok|alright), (got it|understood|i see|good to know), (thanks|thank you|cheers)
(got it|understood|i see|good to know|makes sense)
(wow|oh), (impressive|amazing|that is clever|you are good|great)
(cheers|thanks), (mate|buddy|friend|robot|pal|my friend)
(correct|right|exactly|spot on), (well done|good job|thanks|thank you)
(my|our) (daughter|son|boss|wife|friend|kid) says (thank you|thanks)
(i am|i'm) (very |so |)(grateful|thankful)
(merci|danke|gracias|grazie|arigato)
(i like|i love) (your answer|that answer|it|that|you)
(fantastic|wonderful|superb|lovely|marvellous|terrific|neat|sweet)
(thanks|thank you), (that is all i wanted to know|that is what i needed|that helps)
(you are|you're) (a star|the best|a genius|a life saver|awesome|amazing)
"""

GOODBYE = """
(bye|goodbye|good bye|see you|see you later|bye bye|good night|farewell|take care|cya)
(that is|that's) all (for now|for today|)
i (have to|must) go (now|)
(see you|talk to you|speak to you) (soon|tomorrow|later|next time|again)
(i am|i'm) (off|leaving|done|finished|going) (now|for today|)
(bye|goodbye) (now|then|for now|robot|my friend|mate)
(have a|have yourself a) (good|nice|great|lovely) (day|evening|night|weekend|one)
(so long|ciao|adieu|au revoir|adios|tschuess|cheerio|ta ta)
(until|till) (next time|tomorrow|later|then)
(gotta|got to|need to|must) (go|run|leave|head off)
(catch|see) (you|ya) (later|around|soon)
(okay|ok|well|alright|right), (bye|goodbye|see you|good night)
(thanks|thank you), (bye|goodbye|see you|good night|that is all)
(sleep well|sweet dreams|night night|good night then)
(no more|no further) questions
(nothing else|that will be all|that would be all|that was all|that was it)
(it was|it has been) (nice|good|great|fun) (talking|chatting|speaking) (to|with) you
(let's|let us) (stop|end|finish) (here|for today|now)
(we are|i am|we're|i'm) done (here|for today|)
(time|it is time|it's time) (to go|for bed|to leave|to say goodbye)
(stay safe|be well|all the best|good luck)
(end|stop|quit|exit)
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
(what|who) am i (talking|speaking|chatting) (to|with)
(what is|tell me) your (purpose|job|task|function)
(what|which) (kind|sort|type) of (ai|model|program|robot|machine|bot) are you
(how|with what) were you (trained|made|built|created)
(where|who) do you come from
(can|could) you (introduce yourself|say who you are|explain what you do)
(what's|what is) your (full |)name
(do you|can you) (see|understand|look at) (pictures|images|photos)
(i was wondering|tell me|i want to know) (who|what) you are
(are you|you are) (a machine|a program|a language model|intelligent|alive|human|gpt|claude|gemini)
(how|in what way) (does this|do you) work
(what|which) (things|shapes|objects|colours) (can you|do you) (recognise|recognize|understand|see)
(what are|tell me) your (limits|limitations|abilities|skills|features)
(give me|show me) (some |)(examples|help|instructions)
(what can|what may|what should) i ask (you|)
(how|where) (do i|can i|should i) (start|begin)
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
what language do they speak in %PLACE
what is the (currency|population|flag|climate|best food|largest city) (of|in) %PLACE
(is|was) %PLACE (worth a visit|far away|expensive|safe|hot|cold|big|a country)
(when|what) is the best time to (visit|go to|travel to) %PLACE
(which|what) (river|mountain|museum|airport|hotel) is (the best|the largest|near) (in|) %PLACE
what should i (see|do|visit|eat) in %PLACE
do i need a visa for %PLACE
i was wondering (how|why) %TOPIC (works|started|became popular|is so hard)
my (daughter|son|boss|wife|friend) (asks|wants to know) about %TOPIC
(quick question: |)what is %TOPIC (good for|made of|all about)
sorry to bother you, but (what is %TOPIC|how do i %TASK|where is %PLACE)
(give|show) me (a fact|some facts|a quote|an article|a book|a summary) about %TOPIC
(what is|what are) the (advantages|dangers|basics|rules|benefits|costs|causes) of %TOPIC
(is|are) %TOPIC better than %SUBJECT
what is the difference between %TOPIC and %SUBJECT
(can|could) you (recommend|suggest) (something|a book|a course|a film) about %SUBJECT
who is the most famous (singer|actor|painter|scientist|writer|footballer|king) (in|of) %PLACE
how does (a|an) %OBJECT work
how (do|can) i (repair|clean|use|sell|paint|install) (a|my|the) %OBJECT
how much does (a|an|my|the) %OBJECT (cost|weigh)
where (can|do|could) i (buy|find|rent|get) (a|an) %OBJECT
(what|which) %OBJECT should i buy
is there (a|an) %OBJECT%INPIC
(do|can) you %SEE (a|an|any|the) %OBJECT%INPIC
(what|which) %COLOUR is the %OBJECT
what is (on|in|under|next to) the %OBJECT
where is the %OBJECT
how many %OBJECTs (are there|do you see|can you see)%INPIC
what (brand|make|model|kind) is the %OBJECT
are there any (people|animals|persons|children|buildings|cars|words|letters|numbers|trees)%INPIC
how many (people|persons|children|women|men|faces|fingers|hands|windows|legs) (are there|do you see|can you see)%INPIC
(is|does) the (person|man|woman|boy|girl|child) (smiling|happy|sad|look happy|look old|wear glasses|wearing a hat)
how old is the (person|man|woman|boy|girl|child)%INPIC
what is (he|she) (doing|wearing|looking at|holding|thinking|saying)
(what %COLOUR|how long) is (his|her|the man's|the woman's) (hair|shirt|hat|coat|dress)
(what|which) (letters|words|numbers|language) (are|is) (written|printed)%INPIC
what is written (on the %OBJECT|on it|there|%HERE)
(is there|do you see) any (text|writing|lettering|handwriting)%INPIC
(can|could) you read (this|the) (text|sign|note|letter|receipt|label)
(what|which) (season|month|time of day) is it%INPIC
what is the (weather|mood|temperature) (like |)%HERE
is it (sunny|raining|day or night|indoors or outdoors|winter or summer)%INPIC
who is the (artist|painter|photographer|author) (of this|)
what (camera|program|software) was (this|it) (made|taken) with
how much is (this|the) (picture|painting|photo|drawing) worth
(what|which) (animal|bird|dog|fish|flower|plant|tree|car) is (this|that|it)
do %ANIMALs (eat|like|hate|see|need) (%FOOD|%SUBJECT)
what (do|does) (a|an) %ANIMAL eat
how (long|fast|old|far) (does|do|can) (a|an) %ANIMAL (live|run|get|jump|swim)
(can|may) i (keep|have|feed|ride|wash) (a|an) %ANIMAL
how do (i|you) (make|cook|bake|prepare|freeze) %FOOD
(is|are) %FOOD (healthy|vegan|good for me|fattening|bad for my teeth)
how many calories (are there |)(in|has) %FOOD
what (goes|tastes good|can i drink) with %FOOD
who (will win|won|should win) the (election|world cup|championship|match|war|olympics)
who should i vote for
what (do|did) the (government|president|minister|parliament) (decide|say|do) (about %SUBJECT|)
(what is|explain) the (constitution|tax system|law) (of|in) %PLACE
should i (buy|sell) (shares|stocks|bitcoin|gold|a house|my car)
how (do|can|should) i (invest|save|borrow|earn|transfer) (money|1000 euros|my savings)
what is (inflation|a mortgage|interest|a pension|the stock price of apple|the exchange rate)
(what is|calculate) %DIGIT percent of %DIGIT
(how many|how much) is %DIGIT (and|plus|times|minus) %DIGIT
is %DIGIT a prime number
solve (this equation|x plus %DIGIT equals %DIGIT|the puzzle|this riddle)
(convert|change) %DIGIT (miles|pounds|dollars|inches|degrees) (to|into) (kilometres|kilos|euros|centimetres|celsius)
i have (a headache|a fever|a cough|back pain|a rash), what (should i do|is it|can i take)
what (helps against|are the symptoms of|causes|cures) (a cold|the flu|a headache|diabetes|stress|cancer)
(is|are) (aspirin|vitamins|antibiotics|coffee|this pill) (safe|dangerous|good for me)
how (much|often) should i (sleep|drink|exercise|eat|work)
(fix|debug|explain|review|optimise) (my|this) (code|program|function|script|query)
what does (this|the) (error|warning|exception|function|command) mean
how do i (write|declare|call|use) a (loop|class|function|list|dictionary) in (python|java|rust|javascript)
(which|what) (programming language|laptop|phone|operating system) (should i|do you) (learn|use|buy|prefer)
i (feel|am|have been) (very |so |a bit |)(sad|angry|afraid|stressed|in love|nervous|depressed|excited) (today|lately|)
(my|our) (girlfriend|boyfriend|wife|husband|boss|dog|cat) (left me|hates me|is ill|is angry with me)
what should i (say to|give|buy|write to) my (mother|father|boss|friend|teacher|wife)
(do you|does it) (love|hate|know|remember|miss) (me|my mother|%PERSON|%PLACE)
what (is|was) %PERSON (famous for|like|thinking)
(where|how|why) did %PERSON (live|die|become famous)
(did|was|is) %PERSON (ever |)(married|alive|rich|in %PLACE)
(sing|play|compose) (me |)(a song|something|a melody|happy birthday)
let us (play|talk about) (chess|a game|%TOPIC|hangman|twenty questions)
(turn on|switch off|open|close) the (light|radio|heating|window|door|tv)
(remind|wake) me (tomorrow|at seven|in ten minutes|to call my mother)
(search|google|look up) (%TOPIC|%PLACE|the news|the weather)
what (is on tv|is in the news|happened) (today|yesterday|tonight|this week)
(generate|draw|paint|create|make) (me |)(a picture|an image|a photo|a logo) of (a|an) (%ANIMAL|%OBJECT)
(edit|crop|rotate|sharpen|delete) (this|the) (picture|photo|image)
what does the (word|name) (serendipity|freedom|peter|irony|quorum) mean
how do you (spell|pronounce) (necessary|rhythm|beautiful|wednesday)
(correct|check|improve|rewrite) (my|this) (grammar|spelling|text|essay|sentence)
(what|when) (is|was) (the second world war|the french revolution|the moon landing|christmas|easter|the ice age)
how (far|old|hot|big) is the (sun|moon|earth|universe)
are there (aliens|ghosts|gods|unicorns)
(is there|do you believe in) (a god|life after death|life on mars|magic|ghosts)
when (does|will) the (next |)(train|bus|plane|shop|bank|film) (leave|come|arrive|open|close|start)
(which|what) (train|bus|road|flight) (goes|do i take) to %PLACE
"""

TALK_MACROS = {
    "PLACE": "(france|germany|spain|italy|england|japan|china|india|brazil|peru|egypt|paris|london|"
    "berlin|rome|madrid|tokyo|new york|canada|mexico|norway|kenya|america|australia|moscow|oslo|"
    "sweden|portugal|turkey|greece|ireland|scotland|poland|argentina|nigeria|south africa|thailand|"
    "vietnam|korea|iceland|switzerland|vienna|prague|lisbon|athens|cairo|istanbul|sydney|chicago|"
    "texas|california|hawaii|the north pole|the sahara|the amazon|the alps|hamburg|barcelona)",
    "TOPIC": "(football|tennis|chess|music|history|politics|the moon|the sun|mars|cars|physics|"
    "maths|biology|chemistry|art|computers|the internet|quantum mechanics|cooking|dogs|cats|"
    "dinosaurs|love|money|religion|medicine|photosynthesis|gravity|the economy|the war|french|"
    "electricity|black holes|machine learning|poetry|the roman empire|bread|coffee|tea|wine|"
    "books|films|space|volcanoes|trains|planes|fish|birds|the ocean|evolution|bitcoin|linux|"
    "inflation|democracy|climate change|yoga|philosophy|psychology|the weather|vaccines|genetics|"
    "the stock market|taxes|insurance|artificial intelligence|robots|rugby|basketball|swimming|"
    "golf|gardening|fashion|opera|jazz|ballet|theatre|architecture|astrology|chocolate|cheese|"
    "beer|whales|bees|spiders|sharks|nuclear power|solar energy|the middle ages|ancient egypt|"
    "the cold war|the european union|the united nations|brexit|grammar|algebra|statistics|"
    "blockchain|python|databases|the human heart|dreams|sleep|happiness|friendship|anxiety)",
    "TASK": "(bake a cake|cook rice|learn french|fix my car|write a letter|sort a list|lose weight|"
    "find a job|book a flight|play the piano|tie a tie|sleep better|make coffee|save money|"
    "clean my house|reverse a string|open a file|grow tomatoes|do my homework|file my taxes|"
    "call my mother|play a song|set an alarm|send an email|buy a house|solve this equation|"
    "write a cv|prepare for an interview|cook pasta|boil an egg|iron a shirt|change a tyre|"
    "learn to swim|stop smoking|start a business|build a website|install python|fix my printer|"
    "reset my password|train my dog|plan a wedding|pack a suitcase|knit a scarf|paint a wall|"
    "get rid of ants|make friends|ask for a raise|open a bank account|apply for a visa|"
    "remove a stain|sharpen a knife|calm down|fall asleep|run a marathon|translate a letter)",
    "DIGIT": "(1|2|3|4|5|6|7|8|9|10|12|17|23|42|100|two|three|seven|five|nine|twelve)",
    "PERSON": "(einstein|shakespeare|napoleon|mozart|picasso|cleopatra|newton|darwin|elvis|"
    "marie curie|julius caesar|messi|beethoven|the queen|the pope|leonardo da vinci|gandhi|"
    "abraham lincoln|van gogh|bach|madonna|michael jackson|taylor swift|ronaldo|aristotle|plato|"
    "galileo|tesla|alan turing|churchill|columbus|martin luther king|goethe|frida kahlo|homer)",
    "FOOD": "(pizza|pasta|soup|bread|cake|curry|sushi|salad|pancakes|lasagne|apple pie|milk|"
    "rice|noodles|cheese|chocolate|ice cream|a burger|chips|an omelette|steak|fish|beans|honey|"
    "coffee|lemonade|porridge|pancake batter|tofu|lentils|yoghurt|a sandwich|biscuits|tacos)",
    "OBJECT": "(lamp|clock|bottle|cup|camera|television|laptop|keyboard|guitar|piano|umbrella|"
    "bag|shoe|hat|coat|mirror|fridge|oven|washing machine|toaster|printer|radio|pencil|spoon|fork|"
    "knife|plate|pillow|bed|sofa|carpet|door|window|ladder|hammer|drill|tractor|motorbike|truck|"
    "helicopter|bridge|castle|tower|tent|book|newspaper|letter|key|coin|watch|necklace|kettle)",
    "SUBJECT": "(football|tennis|chess|music|history|politics|physics|maths|biology|art|cooking|"
    "money|religion|medicine|poetry|yoga|philosophy|climate change|gardening|fashion|robots|jazz)",
    "ANIMAL": "(dog|cat|horse|person|car|house|tree|bird|cow|man|giraffe|elephant|lion|bus|bicycle|"
    "chair|table|phone|banana|apple|fish|mouse|flower|sheep|plane|boat|train|duck|bear|zebra|"
    "rabbit|goat|pig|tiger|wolf|fox|monkey|snake|frog|turtle|penguin|owl|eagle|bee|spider|"
    "butterfly|whale|shark|kangaroo|camel|hedgehog|squirrel|hamster|parrot|hen|dolphin|lizard)",
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
why do you (think|say|believe) (it is so|that is so|that it is that)
why (did|would) you (say|think) (that|so|this)
(how|why) (are you|can you be) (so sure)
what (is|was) your (reason|reasoning|evidence|proof) (for that|)
(give|tell) me (a|the|your) (reason|reasons) (for that|)
(on what|upon what) (do you base|is) (that|this|it) (based|)
(how|where) did you (get|find) (that|this|the answer)
how did you (work that out|figure that out|find out|know|arrive at that|reach that conclusion|come up with that)
(but |and |so |)why
(why|how) (so|exactly)
(can|could|would) you (explain|justify) (that|your answer|why|your reasoning)
what (tells|told) you (that|so)
what (makes|made) you (so sure|believe that|think that)
(show|tell) me (why|how you know|how you know that|how you got that)
(for what reason|what for|by what means)
(i was wondering|i wonder|i'd like to know) (how you know|how you can tell|why)
(walk|talk) me through (your reasoning|your thinking|how you got there)
(prove it|prove that|back that up)
where do you (know that|get that|have that) from
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
